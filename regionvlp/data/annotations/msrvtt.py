"""MSR-VTT's reader under its first name, for scripts that import it."""

from regionvlp.data.datasets.msrvtt import load_msrvtt as load_msrvtt
