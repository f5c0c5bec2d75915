import multimodal
import pytest
import torch
from multimodal import CODES, KINDS, TEXT, VOCABULARY

from gnflow.models.generation import UNKNOWN, Sampling, continue_rows, paint

RANGE = range(TEXT, VOCABULARY)
# Prompts of two lengths, with a mark between codes; after the last code there is padding.
PROMPTS = torch.tensor([[0, 1, 2, UNKNOWN, UNKNOWN, 3, UNKNOWN, 4], [0, 2, UNKNOWN, UNKNOWN, 3, UNKNOWN, 4, 4]])
DROPPED = torch.tensor([[0, 2, UNKNOWN, UNKNOWN, 3, UNKNOWN], [0, 2, UNKNOWN, UNKNOWN, 3, UNKNOWN]])


def channels(kind):
    return multimodal.tokens(kind, 1).shape[-1]


def logits(problem, kind, ids):
    row = torch.zeros(1, len(ids), channels(kind), dtype=torch.int64)
    row[0, :, 0] = torch.tensor(ids)
    return problem.model.compute_logits(problem.params, row)[0, -1, TEXT:]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_likeliest_under_guidance_one_after_another(kind, guidance):
    problem = multimodal.small(kind)
    sampling = Sampling(guidance, 0.0)
    found = paint(problem.model, problem.params, PROMPTS, DROPPED, RANGE, channels(kind), sampling)
    assert found.shape == (2, 3)
    for row in range(2):
        told, untold = PROMPTS[row].tolist(), DROPPED[row].tolist()
        for code in found[row].tolist():
            after, without = (logits(problem, kind, ids[: ids.index(UNKNOWN)]) for ids in (told, untold))
            assert code == int((without + guidance * (after - without)).argmax())
            told[told.index(UNKNOWN)] = untold[untold.index(UNKNOWN)] = code + TEXT


def test_without_guidance_the_prompt_does_not_matter_and_with_it_it_does():
    problem = multimodal.small("emu3")
    other = PROMPTS.clone()
    other[:, 1] = torch.tensor([5, 6])

    def codes(prompts, guidance):
        arguments = (prompts.repeat(50, 1), DROPPED.repeat(50, 1), RANGE, 2, Sampling(guidance, 1.0))
        return paint(problem.model, problem.params, *arguments)

    assert torch.equal(codes(PROMPTS, 0.0), codes(other, 0.0))
    assert not torch.equal(codes(PROMPTS, 5.0), codes(other, 5.0))


def test_draws_follow_the_softmax_and_the_seed():
    problem = multimodal.small("janus")
    prompts = torch.tensor([[0, 1, UNKNOWN]]).expand(4000, 3)
    arguments = (problem.model, problem.params, prompts, prompts, RANGE, channels("janus"))
    drawn = paint(*arguments, Sampling(1.0, 0.7, seed=1)).flatten()
    expected = torch.softmax(logits(problem, "janus", [0, 1]) / 0.7, -1)
    torch.testing.assert_close(drawn.bincount(minlength=CODES) / 4000, expected.float(), atol=0.03, rtol=0)
    assert torch.equal(drawn, paint(*arguments, Sampling(1.0, 0.7, seed=1)).flatten())
    assert not torch.equal(drawn, paint(*arguments, Sampling(1.0, 0.7, seed=2)).flatten())


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_the_likeliest_ids_of_text_one_after_another(kind):
    problem = multimodal.small(kind)
    rows = problem.tokens[:, :4]
    words = TEXT // 2
    found = continue_rows(problem.model, problem.params, rows, words, TEXT - words, 3)
    for i in range(3):
        expected = problem.model.compute_logits(problem.params, rows)[:, -1, : TEXT if i else words].argmax(-1)
        assert torch.equal(found[:, i], expected)
        following = torch.zeros_like(rows[:, :1])
        following[:, 0, 0] = expected
        rows = torch.cat((rows, following), dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_does_not_begin_with_the_mark_that_ends_it(kind):
    problem = multimodal.small(kind)
    rows = problem.tokens[:, :4]
    likeliest = problem.model.compute_logits(problem.params, rows)[:, -1, :TEXT].argmax(-1)
    words = int(likeliest.max())
    assert words > 0
    found = continue_rows(problem.model, problem.params, rows, words, TEXT - words, 1)
    assert (likeliest >= words).any()
    assert (found < words).all()
