import gallery
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from gnflow.data.multimodal import digits
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.digits import Labelled
from gnflow.data.prepare import prepare
from gnflow.metrics.recognition import measure_recognition, recognise
from gnflow.workspace import Workspace


@pytest.fixture(scope="module", params=gallery.STYLES)
def dataset(request, tmp_path_factory: pytest.TempPathFactory) -> MultimodalDataset:
    made = prepare(gallery.multimodal(request.param), Workspace(tmp_path_factory.mktemp("project")))
    assert isinstance(made, MultimodalDataset)
    return made


def test_the_classifier_is_that_of_scikit_learn(dataset: MultimodalDataset) -> None:
    pixels, labels = load_digits(return_X_y=True)
    train, held_out = digits.read_labelled(dataset.data.source)
    kept = len(train.labels)
    assert (kept, len(held_out.labels)) == (1438, 359)
    neighbour = KNeighborsClassifier(1).fit(pixels[:kept], labels[:kept])
    assert np.mean(recognise(train, held_out.images) == neighbour.predict(pixels[kept:])) > 0.99
    assert np.mean(recognise(train, held_out.images) == held_out.labels) > 0.95


def test_examples_are_held_out_images_with_captions_that_are_true_of_them(dataset: MultimodalDataset) -> None:
    _, held_out = digits.read_labelled(dataset.data.source)
    examples = dataset.list_examples(50)
    seen = (
        held_out.images
        if dataset.data.style == "janus"
        else dataset.codec.decode(dataset.codec.encode(held_out.images))
    )
    known = {image.tobytes(): label for image, label in zip(seen, held_out.labels.tolist(), strict=True)}
    assert len({example.image.tobytes() for example in examples}) == 50
    assert [known[example.image.tobytes()] for example in examples] == [
        digits.find_label(example.caption) for example in examples
    ]
    assert 300 < len(dataset.list_examples(10_000)) <= 359


def test_figures_are_shares_of_what_is_right(dataset: MultimodalDataset) -> None:
    train, _ = digits.read_labelled(dataset.data.source)
    drawn, shown = train.images[:10], train.labels[:10].tolist()
    prompts = [f"the digit {digits.NAMES[label]}" for label in shown[:7]] + [
        f"handwritten digit: {(label + 1) % 10}" for label in shown[7:]
    ]
    captions = [*prompts[:4], "", "the digit", "one or two", *prompts[7:9], "seven eight"]
    found = measure_recognition(dataset, prompts, drawn, captions)
    assert found["samples/recognised"] == 0.7
    assert found["samples/captioned"] == 0.6
    assert 0.9 < found["samples/classifier_accuracy"] < 1
    assert recognise(Labelled(drawn, train.labels[:10] + 10), drawn) == [label + 10 for label in shown]
