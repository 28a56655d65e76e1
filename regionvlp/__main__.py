"""``python -m regionvlp`` is the command ``regionvlp``."""

from regionvlp.pipelines.cli import main

if __name__ == "__main__":
    main()
