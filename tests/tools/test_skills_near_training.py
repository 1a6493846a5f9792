"""No text of the packaged skills repeats what encoders are trained on; the tool looks at cosines as well."""

from skills_near_training import shared_runs, skill_texts, training_texts


def test_skills_and_training_texts_have_no_six_words_in_a_row_in_common():
    training = training_texts()
    assert len(training) > 5000
    assert shared_runs(skill_texts(), training) == []


def test_six_words_in_a_row_are_found_without_the_owner_and_the_case():
    training = ["{0} keeps a tin of loose tea on the sill."]
    assert shared_runs(["She Keeps a tin of loose, dark tea", "Mira keeps a tin of loose tea"], training) == [
        ("Mira keeps a tin of loose tea", "keeps a tin of loose tea"),
    ]
