"""Images and captions from Parquet files, checked against what was put into them."""

from io import BytesIO
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from gnflow.data.multimodal import tables
from gnflow.data.multimodal.samples import Gallery, Images
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.spec.multimodal import ImageFiles, ImageHub, Multimodal
from gnflow.workspace import Workspace

SIZE = {"height": 6, "width": 4}


def picture(number: int, height: int = 6, width: int = 4, colours: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(256, size=(height, width, colours), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, form, **options)
    return file.getvalue()


def table(path: Path, numbers: range, **columns: object) -> None:
    rows = {"image": [encoded(picture(n)) for n in numbers], "text": [f"picture {n}" for n in numbers], **columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    polars.DataFrame(rows).write_parquet(path, row_group_size=4)


def files(root: Path, **fields: object) -> Gallery:
    return tables.open_file_gallery(ImageFiles.model_validate({**SIZE, "paths": ["*.parquet"], **fields}), root)


def hub(root: Path, **fields: object) -> Gallery:
    return tables.open_hub_gallery(ImageHub.model_validate({**SIZE, "path": "set", **fields}), root)


def numbers(images: Images) -> list[int]:
    """Which pictures these are; each is compared with the one that was written."""
    found = []
    for image, caption in images.read():
        found.append(int(caption.removeprefix("picture ")))
        assert np.array_equal(image, picture(found[-1])), caption
    assert [f"picture {number}" for number in found] == list(images.captions())
    assert images.samples == len(found)
    return found


def test_pngs_come_back_exactly_and_the_last_rows_of_all_files_are_held_out(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(11))
    table(tmp_path / "b.parquet", range(11, 20))
    train, held_out = files(tmp_path, held_out_fraction=0.5)
    assert (numbers(train), numbers(held_out)) == (list(range(10)), list(range(10, 20)))
    train, held_out = files(tmp_path, held_out_fraction=0.05)
    assert (numbers(train), numbers(held_out)) == (list(range(19)), [19])


def test_a_file_that_is_held_out_is_not_trained_on_though_a_pattern_names_it(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(3))
    table(tmp_path / "b.parquet", range(3, 5))
    train, held_out = files(tmp_path, held_out=["b.parquet"])
    assert (numbers(train), numbers(held_out)) == ([0, 1, 2], [3, 4])


def test_hugging_faces_layout_is_read_by_split(tmp_path: Path) -> None:
    for name, rows in (("train-00000-of-2", range(3)), ("train-00001-of-2", range(3, 6)), ("validation", range(6, 8))):
        content = [{"bytes": encoded(picture(n)), "path": f"{n}.png"} for n in rows]
        table(tmp_path / "set" / "data" / f"{name}.parquet", rows, image=content)
    train, held_out = hub(tmp_path)
    assert (numbers(train), numbers(held_out)) == (list(range(6)), [6, 7])
    with pytest.raises(DataError, match=r"no Parquet file of the split `test` under .*set\nexpected test\.parquet"):
        hub(tmp_path, held_out="test")


def test_other_columns_and_jpeg_and_grey(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 4, dtype=np.uint8)[None, :, None], (6, 4, 1))
    polars.DataFrame({"picture": [encoded(smooth, "JPEG", quality=95)] * 2, "label": ["one", "two"]}).write_parquet(
        tmp_path / "a.parquet"
    )
    train, held_out = files(tmp_path, image="picture", text="label", colours="grey")
    (sample,) = train.read()
    assert sample.image.shape == (6, 4, 1)
    assert np.abs(sample.image.astype(int) - smooth).max() < 12
    assert list(held_out.captions()) == ["two"]


def test_a_larger_image_is_scaled_and_cut_to_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((12, 40, 3), dtype=np.uint8)
    wide[:, 12:28] = 200
    table(tmp_path / "a.parquet", range(2), image=[encoded(wide), encoded(wide)])
    sample = next(files(tmp_path).train.read())
    # The middle of 12 x 40 in the form of 6 x 4 is 12 x 8; with what a scaled pixel sees beside it, all of it bright.
    assert sample.image.shape == (6, 4, 3)
    assert (sample.image == 200).all()


def test_what_is_no_image_is_refused_by_row(tmp_path: Path) -> None:
    good = encoded(picture(0))
    for bad, problem in (
        (b"text", "is not a complete PNG or JPEG"),
        (good[: len(good) // 2], "is not a complete PNG or JPEG"),
        (None, "is null"),
        (encoded(picture(0), "GIF"), "is not a complete PNG or JPEG"),
    ):
        table(tmp_path / "a.parquet", range(4), image=[good, good, bad, good])
        with pytest.raises(DataError, match=rf"a\.parquet, row 3: `image` {problem}"):
            list(files(tmp_path, held_out_fraction=0.1).train.read())


def test_a_caption_that_is_no_text_is_refused_by_row(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(3), text=["a", None, "c"])
    with pytest.raises(DataError, match=r"a\.parquet, row 2: `text` is null; expected a string"):
        list(files(tmp_path).train.captions())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"image": "img"}, r"no column `img`; it has image, text"),
        ({"text": "txt"}, r"no column `txt`; it has image, text\ndid you mean `text`"),
        ({"image": "text"}, r"`text` is String; expected Binary, or a Struct with `bytes`"),
        ({"text": "image"}, r"a\.parquet, row 1: `image` is bytes; expected a string"),
    ],
)
def test_a_wrong_column_is_named(fields: dict[str, str], problem: str, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(3))
    with pytest.raises(DataError, match=problem):
        list(files(tmp_path, **fields).train.read())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(20))
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:100])
    with pytest.raises(DataError, match=r"a\.parquet is not a complete Parquet file"):
        files(tmp_path)


@pytest.mark.parametrize("style", ["emu3", "janus"])
def test_a_table_is_prepared_from_end_to_end(style: str, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", range(30))
    data = Multimodal.model_validate(
        {
            "style": style,
            "source": {"kind": "files", "paths": ["a.parquet"], "held_out_fraction": 0.2, **SIZE},
            "image_tokenizer": {"kind": "vq", "patch": 2, "codebook": 16},
            "tokenizer": "bytes",
            "context": 64,
        }
    )
    dataset = prepare(data, Workspace(tmp_path))
    assert data.grid == (3, 2)
    assert data.channels == (14 if style == "janus" else 2)
    split = dataset.held_out
    assert dataset.decode_texts(np.asarray(split.ids[split.find_rows("text")])) == [
        f"picture {n}" for n in range(24, 30)
    ]
    images = np.stack([picture(n) for n in range(24, 30)])
    quantised = dataset.codec.decode(dataset.codec.encode(images))
    assert np.array_equal(dataset.decode_images(np.asarray(split.ids[split.find_rows("generation")])), quantised)
    if style == "janus":
        rows = split.find_rows("understanding")
        assert np.array_equal(dataset.restore_images(split.gather(np.arange(rows.start, rows.stop))), images)
    table(tmp_path / "a.parquet", range(1, 31))
    assert prepare(data, Workspace(tmp_path)).directory != dataset.directory


def test_a_name_on_the_hub_that_cannot_be_read_is_no_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(file: str) -> polars.LazyFrame:
        asked.append(file)
        raise OSError("error sending request")

    monkeypatch.setattr(polars, "scan_parquet", unreachable)
    with pytest.raises(DataError, match="cannot be read: error sending request\ncheck the name"):
        tables.open_hub_gallery(ImageHub(path="someone/images", height=8, width=8), tmp_path)
    assert asked == ["hf://datasets/someone/images/**/train-*.parquet"]
