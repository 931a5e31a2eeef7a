"""Folders as people have them."""

import os
import pickle
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError, decode, to_array
from localmim_jax.data.folder import FolderSource
from localmim_jax.data.source import require_same_classes
from localmim_jax.data.sources import open_source
from localmim_jax.errors import DataError


@pytest.fixture
def make(tmp_path):
    """make("a/1.jpg", ...) writes small images (or, for other suffixes, text) and returns the folder."""

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"):
                Image.new("RGB", (7, 5), (len(name), 0, 0)).save(path)
            else:
                path.write_text("not an image")
        return str(tmp_path)

    return write


def names(source):
    return [source.key_of(i) for i in range(len(source))]


def test_flat_without_labels(make):
    source = FolderSource(make("b.jpg", "a.PNG", "c.jpeg", "d.webp", "e.BMP", "notes.txt", "f.psd"))
    assert names(source) == ["a.PNG", "b.jpg", "c.jpeg", "d.webp", "e.BMP"]
    assert not source.labeled
    assert source[1].keys() == {"image"}
    assert source[1]["image"] == Path(source.name_of(1)).read_bytes()


def test_nested_with_labels_from_the_first_folder(make):
    source = FolderSource(make("dog/x/2.jpg", "cat/1.jpg", "dog/1.jpg", "dog/y/z/3.jpg"))
    assert source.class_names == ("cat", "dog")
    assert [(name, source[i]["label"]) for i, name in enumerate(names(source))] == [
        ("cat/1.jpg", 0),
        ("dog/1.jpg", 1),
        ("dog/x/2.jpg", 1),
        ("dog/y/z/3.jpg", 1),
    ]


def test_an_image_on_top_means_no_labels(make):
    source = FolderSource(make("cat/1.jpg", "dog/1.jpg", "stray.jpg"))
    assert len(source) == 3
    assert not source.labeled


def test_dotfiles_and_dot_folders_are_skipped(make):
    assert names(FolderSource(make("a/1.jpg", "a/._1.jpg", ".cache/2.jpg", ".3.jpg"))) == ["a/1.jpg"]


def test_splits_are_subfolders_where_there_are_any(make):
    folder = make("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg", "readme.jpg")
    assert names(FolderSource(folder)) == ["a/1.jpg", "b/2.jpg"]
    for split in ("val", "validation"):
        assert names(FolderSource(folder, split)) == ["a/3.jpg", "b/4.jpg"]
    with pytest.raises(DataError, match="no folder test/ for split 'test': found only train/, val/"):
        FolderSource(folder, "test")


@pytest.mark.parametrize(
    ("folders", "split", "first"),
    [
        (("Train", "Valid"), "train", "a/train.jpg"),
        (("Train", "Valid"), "validation", "a/val.jpg"),
        (("training", "dev"), "val", "a/val.jpg"),
        (("TRAIN", "TEST"), "test", "a/val.jpg"),
        (("train", "fold1"), "fold1", "a/val.jpg"),
    ],
)
def test_splits_by_the_names_that_people_give_them(make, folders, split, first):
    folder = make(f"{folders[0]}/a/train.jpg", f"{folders[1]}/a/val.jpg")
    assert names(FolderSource(folder, split)) == [first]


def test_a_split_that_is_called_otherwise_is_named_with_what_is_there(make):
    with pytest.raises(DataError, match=r"no folder val/ for split 'val': found only evaluation/, train/; make it"):
        FolderSource(make("train/a/1.jpg", "evaluation/a/1.jpg"), "val")
    with pytest.raises(DataError, match=r"has val and valid for split 'validation': give the name of one"):
        FolderSource(make("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"), "validation")


def test_a_class_may_be_called_valid(make):
    assert FolderSource(make("valid/1.jpg", "invalid/1.jpg")).class_names == ("invalid", "valid")


def test_train_without_a_train_folder(make):
    folder = make("val/a/1.jpg")
    with pytest.raises(DataError, match="no folder train/ for split 'train': found only val/"):
        FolderSource(folder)


def test_another_split_of_an_undivided_folder(make):
    with pytest.raises(DataError, match=r"no folder validation/.*found no split folders"):
        FolderSource(make("a/1.jpg"), "validation")


def test_missing_empty_and_wrong_folders_say_what_is_expected(make, tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; expected jpg, jpeg, jfif.*png.* files.*train/ and"):
        FolderSource(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no images: found no files; expected"):
        FolderSource(str(tmp_path))
    make("a/1.txt", "a/2.txt", "b/3.psd")
    with pytest.raises(DataError, match=r"found 2 \.txt, 1 \.psd; expected"):
        FolderSource(str(tmp_path))
    with pytest.raises(DataError, match="is a file, not a folder"):
        FolderSource(str(tmp_path / "a/1.txt"))


def test_links_are_followed_but_not_in_circles(make, tmp_path):
    folder = make("set/a/1.jpg", "elsewhere/2.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/b")
    os.symlink(tmp_path / "set", tmp_path / "set/a/up")
    assert names(FolderSource(f"{folder}/set")) == ["a/1.jpg", "b/2.jpg"]


def test_names_in_any_script_and_even_in_no_encoding(make):
    folder = make("猫/é.jpg")
    broken = os.path.join(os.fsencode(folder), b"a\xff.jpg")
    os.rename(os.path.join(folder, "猫/é.jpg"), broken)
    source = FolderSource(folder)
    assert os.fsencode(source.name_of(0)) == broken
    assert source[0]["image"]
    assert names(FolderSource(make("猫/é.jpg")))[-1] == "猫/é.jpg"


def test_both_forms_of_unicode_are_one_class(make):
    one, other = (unicodedata.normalize(form, "Élan") for form in ("NFC", "NFD"))
    source = FolderSource(make(f"{one}/1.jpg", f"{other}/2.jpg", "Zebra/3.jpg"))
    assert source.class_names == ("Zebra", one)
    assert sorted((name[-5:], source[i]["label"]) for i, name in enumerate(names(source))) == [
        ("1.jpg", 1),
        ("2.jpg", 1),
        ("3.jpg", 0),
    ]
    for i in range(3):
        assert source[i]["image"]


def test_what_is_not_read_is_noted(make):
    folder = make("a/1.jpg", "a/2.psd", "b/notes.txt", "stray.jpg")
    os.mkfifo(f"{folder}/a/3.jpg")
    assert FolderSource(folder).notes == (
        f"{folder}: not read: 1 .psd, 1 .txt",
        f"{folder}: 1 are named like images and are no files: a/3.jpg (a named pipe)",
        f"{folder}: 1 folders hold no image: b",
        f"{folder}: 1 images beside the folders (stray.jpg, ...), so folders are not classes",
    )
    os.remove(f"{folder}/a/1.jpg")
    os.remove(f"{folder}/stray.jpg")
    with pytest.raises(DataError, match=r"found 1 \.psd, 1 \.txt and a/3.jpg \(a named pipe\); expected"):
        FolderSource(folder)


def test_a_file_that_goes_away_is_one_bad_example(make):
    source = FolderSource(make("1.jpg", "2.jpg"))
    os.remove(source.name_of(0))
    with pytest.raises(DecodeError, match="No such file"):
        source[0]


def test_an_animation_is_its_first_frame_and_a_stack_its_first_page(tmp_path):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    for name in ("1.gif", "2.tif", "3.mpo", "4.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    source = FolderSource(str(tmp_path))
    assert len(source) == 4
    for i in range(4):
        red = to_array(decode(source[i]["image"], 3))[0, 0]
        assert red[0] > 240
        assert red[2] < 20


def test_it_can_be_sent_to_a_worker(make):
    source = FolderSource(make("a/1.jpg", "b/2.jpg"))
    copy = pickle.loads(pickle.dumps(source))
    assert (copy[1], copy.class_names, len(copy)) == (source[1], source.class_names, 2)


def test_the_description_has_counts_sizes_and_examples(make, tmp_path):
    folder = make(*(f"{c}/{i}.jpg" for c in "ab" for i in range(9)))
    Image.new("RGB", (30, 20)).save(tmp_path / "a/0.jpg")
    text = open_source(f"folder:{folder}").describe()
    assert "18 images of 2 classes, 5 x 7 to 20 x 30 pixels (16 sampled), such as" in text
    assert text.count(".jpg") == 3
    assert "\n" not in text


def test_a_class_that_training_never_saw(make):
    folder = make("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/zebra/1.jpg")
    train, val = FolderSource(folder), FolderSource(folder, "val")
    with pytest.raises(DataError, match=rf"only in folder:{folder}\[val\]: zebra; only in .*\[train\]: b"):
        require_same_classes(train, val)
    require_same_classes(train, train)
