"""The command ``regionvlp``."""


def main() -> None: ...
