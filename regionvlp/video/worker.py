"""The child process of :class:`~regionvlp.video.pool.DecodePool`: decodes one video after another until told to stop.

Protocol, nothing pickled: each request is a line of JSON on standard input, ``{"path": ..., "count": ...}``, with
``places`` where frames are drawn, and ``start`` and ``end`` where a stretch is meant. Each answer goes to what was
standard output when the process began: four bytes with the length of a header (big endian), the header in JSON, and
the raw bytes of the pictures. The first answer, ``{"ready": true}``, says that the imports are done. Standard output
itself is turned to standard error, so that the chatter of a library cannot get in between.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from regionvlp.errors import InputError, VideoError
from regionvlp.video.decoded import DecodedVideo
from regionvlp.video.failures import out_of_memory
from regionvlp.video.readers import load_reader, read_frames


def main(arguments: list[str] | None = None) -> None:
    """Serves requests until standard input closes, which it does when the parent dies."""
    parser = argparse.ArgumentParser(description="decodes videos for a parent process")
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--max-seconds", type=float, default=None)
    parser.add_argument("--memory-mb", type=int, default=None)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    try:
        load_reader(options.reader)
    except InputError as error:
        _send(answers, {"input_error": {"message": error.message, "hint": error.hint}})
        os._exit(1)  # not return: the thread that listens would be caught inside a read by the end of Python
    _silence_ffmpeg()
    _limit_memory(options.memory_mb)
    _send(answers, {"ready": True})
    while True:
        _answer(answers, json.loads(requests.get()), options.reader, options.max_seconds)


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Takes requests in a thread of its own, so that even a hanging decoder dies with its parent."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _answer(answers: IO[bytes], request: dict[str, Any], reader: str, max_seconds: float | None) -> None:
    path, stretch = request.pop("path"), {"max_seconds": max_seconds, **request}
    try:
        video = read_frames(Path(path), reader=reader, **stretch)
    except VideoError as error:
        _send(answers, {"video_error": _fields(error)})
    except MemoryError:
        _send(answers, {"video_error": _fields(out_of_memory(Path(path), stage="decode"))})
    except Exception as error:  # a bug on one strange file must not end a run of a million
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
        failure = VideoError(f"a reader failed on '{path}' with {words}", stage="decode", reason="internal")
        _send(answers, {"video_error": _fields(failure)})
    else:
        _send(answers, _header_of(video), video)


def _fields(error: VideoError) -> dict[str, Any]:
    return {
        "message": error.message,
        "stage": error.stage,
        "reason": error.reason,
        "transient": error.transient,
        "hint": error.hint,
    }


def _header_of(video: DecodedVideo) -> dict[str, Any]:
    """Returns everything of a decoded video but its pixels, and the sizes that the pixels are to be read by."""
    return {
        "sizes": [frame.shape[:2] for frame in video.frames],
        "frame_index": video.frame_index.tolist(),
        "frame_time": video.frame_time.tolist(),
        "counts": {
            "frames_announced": video.frames_announced,
            "frames_decoded": video.frames_decoded,
            "packets_skipped": video.packets_skipped,
            "frames_read": video.frames_read,
        },
        "reader": video.reader,
    }


def _send(answers: IO[bytes], header: dict[str, Any], video: DecodedVideo | None = None) -> None:
    text = json.dumps(header).encode()
    answers.write(len(text).to_bytes(4, "big") + text)
    for frame in video.frames if video else ():
        answers.write(frame.data)
    answers.flush()


def _silence_ffmpeg() -> None:
    """Keeps FFmpeg off standard error, and its last words in the errors that PyAV raises."""
    import av

    av.logging.set_level(av.logging.PANIC)


def _limit_memory(megabytes: int | None) -> None:
    """Bounds what decoding may take, on top of what the libraries occupy already (torch: gigabytes of addresses)."""
    statm = Path("/proc/self/statm")
    if megabytes is None or not statm.exists():
        return
    import resource

    occupied = int(statm.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = occupied + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
