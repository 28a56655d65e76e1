"""``regionvlp finetune``: see :mod:`regionvlp.pipelines.pretrain`."""

from regionvlp.pipelines.pretrain import finetune as command

__all__ = ["command"]
