from dataclasses import replace

from bertkit.squad.dataset import Answer, Dataset, Problem, Question

QUESTIONS = (
    Question("a", "Normans", 0, "Who?", (Answer("the Normans", 0),)),
    Question("b", "Berlin", 1, "What?", (), is_impossible=True),
    Question("c", "Normans", 0, "When?", (Answer("1066", 12),)),
)
DATASET = Dataset("two paragraphs", ("the Normans 1066", "Berlin"), QUESTIONS)


def test_single_question_is_asked_about_its_paragraph():
    dataset = Dataset.single("Berlin is big.", "How big?")
    assert dataset.contexts == ("Berlin is big.",)
    assert dataset.context(dataset.questions[0]) == "Berlin is big."
    assert not dataset.has_impossible


def test_examples_keep_each_paragraph_once():
    dataset = Dataset.from_examples({"1": ("p", "a?"), "2": ("r", "b?"), "3": ("p", "c?")})
    assert dataset.contexts == ("p", "r")
    assert [q.context_index for q in dataset.questions] == [0, 1, 0]


def test_subset_keeps_order_and_only_the_paragraphs_it_needs():
    subset = DATASET.subset([1])
    assert subset.contexts == ("Berlin",)
    assert subset.questions[0] == replace(QUESTIONS[1], context_index=0)
    both = DATASET.subset([2, 0])
    assert [q.id for q in both.questions] == ["c", "a"]
    assert [both.context(q) for q in both.questions] == ["the Normans 1066"] * 2


def test_has_impossible():
    assert DATASET.has_impossible
    assert not DATASET.subset([0, 2]).has_impossible


def test_content_hash_changes_with_content_and_not_with_the_name():
    assert replace(DATASET, name="other").content_hash == DATASET.content_hash
    changed = [
        replace(DATASET, contexts=("the Normans 1067", "Berlin")),
        replace(DATASET, questions=QUESTIONS[:2]),
        replace(DATASET, questions=QUESTIONS[::-1]),
        replace(DATASET, questions=(replace(QUESTIONS[0], question="Whom?"), *QUESTIONS[1:])),
        replace(DATASET, questions=(replace(QUESTIONS[0], answers=()), *QUESTIONS[1:])),
        replace(DATASET, questions=(replace(QUESTIONS[0], context_index=1), *QUESTIONS[1:])),
        replace(DATASET, questions=(replace(QUESTIONS[0], id="z"), *QUESTIONS[1:])),
        replace(DATASET, questions=(replace(QUESTIONS[0], is_impossible=True), *QUESTIONS[1:])),
    ]
    assert len({dataset.content_hash for dataset in [DATASET, *changed]}) == len(changed) + 1


def test_problem_names_file_article_question_and_reason():
    problem = Problem("train.json", "Normans", "56dd", "is blank")
    assert str(problem) == "train.json: article 'Normans', question '56dd': is blank"
