"""Readers of image files, on small files made here; generated and shipped digits."""

import gzip
import hashlib
import sys
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from pes_rl.envs.unrolled import images
from pes_rl.envs.unrolled.image_files import (
    read_cifar_10,
    read_idx,
    read_idx_pair,
    write_idx,
)
from pes_rl.envs.unrolled.images import load_images, shrink
from pes_rl.envs.unrolled.lr_schedule import LearningRateSchedule

GENERATOR = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(shape: tuple[int, ...]) -> tuple[np.ndarray, bytes]:
    """An array and its idx content, by hand."""
    array = GENERATOR.integers(256, size=shape, dtype=np.uint8)
    content = bytes([0, 0, 8, len(shape)])
    for length in shape:
        content += length.to_bytes(4, "big")
    return array, content + array.tobytes()


def test_idx_files_are_read_and_written(tmp_path):
    array, content = idx((4, 3, 2))
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_idx(path, md5(content)), array)
    write_idx(tmp_path / "again.gz", array)
    assert gzip.decompress((tmp_path / "again.gz").read_bytes()) == content


def test_images_and_labels_come_from_their_files(tmp_path):
    (pixels, one), (labels, two) = idx((5, 2, 2)), idx((5,))
    (tmp_path / "images.gz").write_bytes(gzip.compress(one))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(two))
    digests = {"images.gz": md5(one), "labels.gz": md5(two)}
    found = read_idx_pair(tmp_path, digests)
    np.testing.assert_array_equal(found[0], pixels.reshape(5, 4))
    np.testing.assert_array_equal(found[1], labels)


def _torn(content: bytes) -> bytes:
    return gzip.compress(content)[:-9]


def _other(content: bytes) -> bytes:
    return gzip.compress(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(_torn, "damaged or not gzipped", id="torn"),
        pytest.param(
            lambda content: content, "damaged or not gzipped", id="not gzipped"
        ),
        pytest.param(_other, "has the checksum", id="another file"),
    ],
)
def test_a_bad_idx_file_is_named(tmp_path, write, message):
    _, content = idx((4, 3))
    (tmp_path / "file.gz").write_bytes(write(content))
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "file.gz", md5(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x0d\1\0\0\0\1abcd", b"\0\0\x08\1\0\0\0\3ab", b"\0\0\x08\4\0\0"],
    ids=["empty", "another type", "too short", "header alone"],
)
def test_what_is_no_idx_array_is_refused(tmp_path, content):
    (tmp_path / "file.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="no idx array"):
        read_idx(tmp_path / "file.gz", md5(content))


def test_cifar_10_rows_are_a_label_and_pixels(tmp_path):
    rows = GENERATOR.integers(256, size=(2, 3, 3073), dtype=np.uint8)
    digests = {}
    for name, part in zip(("a.bin", "b.bin"), rows, strict=True):
        (tmp_path / name).write_bytes(part.tobytes())
        digests[name] = md5(part.tobytes())
    pixels, labels = read_cifar_10(tmp_path, digests)
    np.testing.assert_array_equal(pixels, rows.reshape(6, 3073)[:, 1:])
    np.testing.assert_array_equal(labels, rows[:, :, 0].ravel())
    (tmp_path / "b.bin").write_bytes(rows[1].tobytes()[:-1])
    with pytest.raises(ValueError, match=r"b\.bin has the checksum"):
        read_cifar_10(tmp_path, digests)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
        ("cifar-10", "data_batch_1.bin"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, file):
    with pytest.raises(ValueError, match=f"{file} cannot be read.*data_folder"):
        load_images(name, str(tmp_path))


def test_sets_and_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="set data_folder"):
        load_images("cifar-10")
    with pytest.raises(ValueError, match="has no meaning for generated"):
        load_images("generated", str(tmp_path))


@pytest.mark.parametrize(
    ("before", "size", "channels"),
    [(28, 14, 1), (28, 8, 1), (28, 28, 1), (32, 8, 3), (5, 3, 2), (4, 1, 1)],
)
def test_smaller_images_are_means_over_areas(before, size, channels):
    """Of an image whose pixels are each `size` by `size` the areas are blocks."""
    images = GENERATOR.integers(256, size=(3, channels, before, before), dtype=np.uint8)
    large = np.kron(images, np.ones((size, size)))
    blocks = large.reshape(3, channels, size, before, size, before)
    found = shrink(images.reshape(3, -1), channels, size)
    assert found.dtype == np.uint8
    means = blocks.mean((3, 5)).reshape(3, -1)
    np.testing.assert_allclose(found, means, rtol=0, atol=0.5 + 1e-4)


def test_many_images_become_smaller_as_one_does():
    images = GENERATOR.integers(256, size=(9000, 16), dtype=np.uint8)
    found = shrink(images, 1, 3)
    for row in (0, 4095, 4096, 8999):
        np.testing.assert_array_equal(found[row], shrink(images[row][None], 1, 3)[0])


def test_a_problem_has_smaller_images_of_one_colour(tmp_path, monkeypatch):
    (pixels, one), (labels, two) = idx((12, 28, 28)), idx((12,))
    contents = {"images.gz": one, "labels.gz": two}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(gzip.compress(content))
    digests = {name: md5(content) for name, content in contents.items()}
    monkeypatch.setitem(images.IDX_MD5, "mnist", digests)
    folder = str(tmp_path)
    problem = LearningRateSchedule(data="mnist", data_folder=folder, image_size=8)
    found = problem.images
    assert found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels, shrink(pixels.reshape(12, -1), 1, 8))
    np.testing.assert_array_equal(found.labels, labels)
    assert found.mean[0, 0] == pytest.approx(found.pixels[:10].mean())
    assert problem.layer_sizes((5,)) == (64, 5, 10)
    whole = LearningRateSchedule(data="mnist", data_folder=folder)
    assert whole.images.num_pixels == 784
    with pytest.raises(ValueError, match=r"image_size=29 .* use 28 or less"):
        LearningRateSchedule(data="mnist", data_folder=folder, image_size=29)


def test_a_problem_has_smaller_images_of_three_colours(tmp_path, monkeypatch):
    rows = GENERATOR.integers(256, size=(6, 3073), dtype=np.uint8)
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    monkeypatch.setattr(images, "CIFAR_10_MD5", {"a.bin": md5(rows.tobytes())})
    found = load_images("cifar-10", str(tmp_path), 4)
    assert found.num_pixels == 48
    green = rows[:, 1 + 1024 : 1 + 2048].reshape(6, 4, 8, 4, 8).mean((2, 4))
    found_green = np.asarray(found.pixels)[:, 16:32].reshape(6, 4, 4)
    np.testing.assert_allclose(found_green, green, rtol=0, atol=0.5 + 1e-4)


@pytest.mark.parametrize("name", ["generated", "digits"])
def test_sets_of_one_size_have_no_other(name):
    with pytest.raises(ValueError, match=r"image_size=4 has no meaning .* drop it"):
        load_images(name, None, 4)


@pytest.mark.parametrize("name", ["generated", "digits"])
def test_batches_are_standardised_and_of_their_part(name):
    found = load_images(name)
    num_images = len(found.labels)
    assert found.num_pixels == 64
    assert set(np.asarray(found.labels)) == set(range(10))
    training = num_images - num_images // 6
    bits = np.arange(training, dtype=np.uint32)
    inputs, labels = found.batch(jax.numpy.asarray(bits), "training")
    assert abs(inputs.mean()) < 1e-4
    assert abs(inputs.std() - 1) < 1e-4
    np.testing.assert_array_equal(labels, found.labels[:training])
    bits = np.arange(num_images // 6, dtype=np.uint32) + num_images // 6 * 7
    _, labels = found.batch(jax.numpy.asarray(bits), "validation")
    np.testing.assert_array_equal(labels, found.labels[training:])


def test_colours_are_standardised_each():
    pixels = GENERATOR.integers(256, size=(12, 6), dtype=np.uint8)
    pixels[:, 2:4] //= 4
    found = images._as_images(pixels, np.arange(12) % 10, channels=3)
    for channel in range(3):
        values = pixels[:10, 2 * channel : 2 * channel + 2]
        for place in (2 * channel, 2 * channel + 1):
            assert found.mean[0, place] == pytest.approx(values.mean())
            assert found.deviation[0, place] == pytest.approx(values.std())


@pytest.fixture
def openml(monkeypatch):
    """A stand-in for scikit-learn, with a set of two images and a count of fetches."""
    fetched = []

    def fetch_openml(name: str, **_: Any) -> Any:
        fetched.append(name)
        if name == "mnist_784":
            raise OSError("no network")
        return SimpleNamespace(
            data=np.arange(2.0 * 784).reshape(2, 784) % 256, target=np.array(["3", "7"])
        )

    datasets = SimpleNamespace(fetch_openml=fetch_openml)
    monkeypatch.setitem(sys.modules, "sklearn", SimpleNamespace(datasets=datasets))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    return fetched


def test_a_download_becomes_files_that_are_read_and_checked(openml, tmp_path):
    folder = images.download("fashion-mnist", tmp_path)
    assert images.download("fashion-mnist", tmp_path) == folder
    assert openml == ["Fashion-MNIST"]
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    assert labels == b"\0\0\x08\1\0\0\0\2\3\7"
    with pytest.raises(ValueError, match="has the checksum"):
        load_images("fashion-mnist", str(folder))


@pytest.mark.usefixtures("openml")
def test_a_failed_download_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no network.*set data_folder"):
        images.download("mnist", tmp_path)


def test_without_scikit_learn_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pes-rl\[data\]"):
        images.download("mnist", tmp_path)
