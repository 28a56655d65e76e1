"""How data and receipt of a shard appear together, whatever other writers do.

In: a data file under a temporary name, and the receipt that vouches for it. Out: both under their names, or neither.

The receipt decides, and it names its data. Two writers of one shard at the same moment, on machines that know nothing
of each other, end with one of the two pairs: a name that is taken is never written over (the second calls its file by
its own checksum instead), of several first receipts exactly one is written, and a data file is removed only when there
is a receipt that names another.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from regionvlp.errors import ShardError
from regionvlp.store.files import has_no_links, publish, publish_new, sha256_of
from regionvlp.store.manifest import BaseManifest
from regionvlp.store.receipts import BaseReceipt, data_files, receipt_path

R = TypeVar("R", bound=BaseReceipt)


class ShardDoneError(ShardError):
    """Another writer has published the shard, so this one's work is not needed."""


class Publication(Generic[R]):
    """Publishes shard ``number`` of ``folder``, once.

    Args:
        folder: with its manifest.
        number: of the shard.
        manifest: of the folder.
        kind: of its receipts.
        replaces: the receipt that the new one is to take the place of, with its data; none by default.
    """

    def __init__(
        self, folder: Path, number: int, manifest: BaseManifest, kind: type[R], replaces: R | None = None
    ) -> None:
        self._folder, self._number, self._manifest = folder, number, manifest
        self._kind, self._replaces = kind, replaces
        self._path = folder / manifest.data_name(number)

    def publish(self, receipt: R, temporary: Path, alone: bool) -> R:
        """Gives data and receipt their names, the receipt last.

        Args:
            receipt: names the shard's usual data file, or none. temporary: where the data lies, flushed.
            alone: whether nobody else can publish the shard meanwhile.

        Returns:
            The receipt as written.

        Raises:
            ShardDoneError: another writer has published the shard. OSError: the disk refuses; nothing of it is left.
        """
        self.refuse_done()
        try:
            if receipt.file is not None:
                receipt = replace(receipt, file=self._publish_data(receipt, temporary))
            if self._replaces is not None:
                receipt.write(self._folder)
            elif not receipt.write_first(self._folder):
                self._remove_own(receipt)
                raise self._done_already()
        except BaseException as error:
            # Where somebody else may be publishing the same bytes, what is there stays for the next worker to judge.
            if alone and not isinstance(error, ShardError):
                self._take_back(receipt)
            raise
        # Only now is it known what is garbage. Data of one who replaces the same receipt may yet be named by theirs.
        if self._replaces is None:
            self._remove_unnamed(receipt.file)
        elif self._replaces.file not in (None, receipt.file):
            (self._folder / str(self._replaces.file)).unlink(missing_ok=True)
        return receipt

    def _publish_data(self, receipt: R, temporary: Path) -> str:
        """Gives the data its name and returns that.

        Data that takes the place of other data never gets a name that a reader may know already.
        """
        assert receipt.sha256 is not None
        by_checksum = self._path.with_stem(f"{self._path.stem}-{receipt.sha256[:12]}")
        if self._replaces is None:
            try:
                if publish_new(temporary, self._path, flushed=True) or self._lies_there(receipt):
                    return self._path.name
            except OSError as error:
                if not has_no_links(error):
                    raise
        publish(temporary, by_checksum, flushed=True)
        return by_checksum.name

    def _lies_there(self, receipt: R) -> bool:
        """Whether the very same data has the shard's name: from a run that was killed before it wrote the receipt."""
        try:
            return self._path.stat().st_size == receipt.bytes and sha256_of(self._path) == receipt.sha256
        except FileNotFoundError:  # removed just now by one who finished the shard
            return False

    def _take_back(self, receipt: R) -> None:
        """Undoes what :meth:`_publish` did before it failed: the receipt first, so that none stands without data."""
        if self._replaces is None:
            receipt_path(self._folder, self._number).unlink(missing_ok=True)
            self._remove_unnamed(None)
        else:
            with suppress(ShardError):
                self._remove_unnamed(self._kind.read(receipt_path(self._folder, self._number)).file)

    def _remove_own(self, mine: R) -> None:
        """Removes the data of a receipt that came too late, unless the one that is there names the same file."""
        with suppress(ShardError):
            theirs = self._kind.read(receipt_path(self._folder, self._number))
            if mine.file is not None and mine.file != theirs.file:
                (self._folder / mine.file).unlink(missing_ok=True)

    def _remove_unnamed(self, named: str | None) -> None:
        """Removes the shard's data files but the one of its receipt."""
        for path in data_files(self._folder, self._manifest, self._number):
            if path.name != named:
                path.unlink(missing_ok=True)

    def refuse_done(self) -> None:
        """Refuses a shard that is done, or whose receipt is not the one to be replaced any more.

        Raises:
            ShardDoneError: it is.
        """
        path = receipt_path(self._folder, self._number)
        if self._replaces is None:
            if path.exists():
                raise self._done_already()
        elif self._kind.read(path) != self._replaces:
            raise ShardDoneError(f"the receipt of shard {self._number} changed meanwhile", "run again")

    def _done_already(self) -> ShardDoneError:
        path = receipt_path(self._folder, self._number)
        return ShardDoneError(f"shard {self._number} is done already: {path} exists", "delete the receipt to redo it")
