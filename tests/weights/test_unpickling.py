"""Pickles that nobody vouches for: plain values and arrays come out, and nothing in them is ever run."""

from __future__ import annotations

import io
import pickle
import pickletools
import resource
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import WeightsError
from regionvlp.weights.reading import read_tensors
from regionvlp.weights.unpickling import Inert, Unpickler, UnsafePickleError, load_values


def arrays(path: Path) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in read_tensors(path).items()}


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


# Pickles by hand, each trying another door: attributes of what is admitted, its class, a registry, a persistent id.
ATTACKS = {
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "builtins.getattr": b"cbuiltins\ngetattr\n.",
    "numpy's loader": b"cnumpy\nload\n(S'x'\ntR.",
    "torch's loader": b"ctorch.storage\n_load_from_bytes\n.",
    "a changed function": b"c_codecs\nencode\n}S'__code__'\nNsb.",
    "another codec": b"c_codecs\nencode\n(S'61'\nS'hex'\ntR.",
    "an array of objects": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'12345678'\ntR.",
    "an array of records": b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'<'\nNS'a'\nNI-1\nI-1\nI0\ntb.",
    "an array itself": b"cnumpy\nndarray\n(I1\ntR.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_other_door_is_open(attack: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(ATTACKS[attack])
    pickletools.dis(ATTACKS[attack], out=io.StringIO())  # it is whole, so nothing but its names is wrong with it
    assert "was refused" in refusal(path)


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_of_old_and_new_numpy(core: str, tmp_path: Path) -> None:
    """What numpy 1 under Python 2 and numpy 2 write for the same float32 array, spelt out."""
    path, raw = tmp_path / "weights.pkl", np.asarray([[1.5, -2.0, 3.25], [0.0, 7.0, 1e9]], "<f4").tobytes()
    for text in (False, True):
        # Python 2 writes bytes as a string, Python 3 in protocol 2 as latin1 text to be encoded.
        escaped = raw.decode("latin1").encode("utf-8")
        data = (
            b"c_codecs\nencode\n(X" + len(escaped).to_bytes(4, "little") + escaped + b"X\x06\x00\x00\x00latin1tR"
            if text
            else b"U" + bytes([len(raw)]) + raw
        )
        path.write_bytes(
            b"\x80\x02}U\x05model}U\x06weightc" + core.encode() + b".multiarray\n_reconstruct\ncnumpy\nndarray\n"
            b"K\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
            b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + data + b"tbss."
        )
        assert arrays(path)["weight"].tolist() == [[1.5, -2.0, 3.25], [0.0, 7.0, 1e9]]


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_layout(protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {
        "plain": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(rng.normal(size=(3, 5))),
        "half": rng.normal(size=7).astype(np.float16),
        "big": rng.normal(size=4).astype(">f4"),
        "whole": np.arange(5),
        "truth": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "single": np.array(2.5, np.float32),
    }
    content = OrderedDict(given, note="text", container=[1, {2}, (b"3",)], best=np.float32(2.5))
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"state_dict": content}, protocol=protocol))
    found = arrays(path)
    assert set(found) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.isnative
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(protocol: int) -> None:
    values = {
        "text": "ünï",
        "numbers": [1, 2.5, True, None],
        "bytes": b"\x00\xff",
        "scalar": np.float32(1.5),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "words": np.array(["a", "bc"]),
    }
    for wrapped in (values, np.array(values, object)):
        read = load_values(io.BytesIO(pickle.dumps(wrapped, protocol=protocol)))
        assert read.keys() == values.keys()
        assert all(np.array_equal(read[name], values[name]) for name in values if name != "numbers")
        assert read["numbers"] == values["numbers"]
    old = pickle.dumps(values, protocol=protocol).replace(b"numpy._core", b"numpy.core")
    if protocol < 4:
        assert np.array_equal(load_values(io.BytesIO(old))["array"], values["array"])


@pytest.mark.parametrize(
    "value",
    [print, Path("x"), {1, 2}, np.array([{}, print], object), np.array([1], object), 1j, slice(1)],
    ids=["function", "class", "set", "objects", "object", "complex", "slice"],
)
def test_other_pickles_are_refused(value: Any) -> None:
    with pytest.raises(UnsafePickleError):
        load_values(io.BytesIO(pickle.dumps({"info": value})))
    with pytest.raises(UnsafePickleError):
        load_values(io.BytesIO(b"cos\nsystem\n(S'true'\ntR."))


def test_a_pickle_that_lies_about_its_array_reaches_no_memory() -> None:
    """The state that makes numpy itself take raw bytes for pointers is refused before numpy sees it."""
    state = (1, (2,), np.dtype("O"), False, b"A" * 16)

    class Lying:
        def __reduce__(self) -> tuple[Any, ...]:
            return (np.array(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state)

    with pytest.raises(UnsafePickleError, match="objects"):
        load_values(io.BytesIO(pickle.dumps(Lying())))


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    short = b"c_codecs\nencode\n(S'1234'\nS'latin1'\ntR."
    path.write_bytes(b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\ntR" + short[:-1] + b"tR.")
    assert "holds 4 bytes" in refusal(path)
    path.write_bytes(pickle.dumps([1, 2]))
    assert "holds a list" in refusal(path)


def test_a_number_in_a_pickle_takes_no_memory(tmp_path: Path) -> None:
    """C's unpickler makes room for as many remembered things as the largest number says."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for program in (b"\x80\x02Nr\xff\xff\xff\x07.", b"cbuiltins\nbytes\n(J\xff\xff\xff\x0ftR."):
        try:
            load_values(io.BytesIO(program))
        except TypeError:
            assert b"bytes" in program
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB on Linux


def test_what_is_named_many_times_is_settled_once() -> None:
    doubled: list[Any] = [np.arange(3)]
    for _ in range(60):
        doubled = [doubled, doubled]
    found = load_values(io.BytesIO(pickle.dumps(doubled)))
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]
    circle: list[Any] = []
    circle.append(circle)
    found = load_values(io.BytesIO(pickle.dumps(circle)))
    assert found[0] is found


def test_foreign_objects_can_be_passed_over() -> None:
    class Foreign(Unpickler):
        foreign = True

    found = Foreign(io.BytesIO(pickle.dumps({"path": Path("x"), "note": 1}))).load()
    assert isinstance(found["path"], Inert)
    assert found["note"] == 1
