from pipeline.tracking.notes import with_section


def test_sections_stand_in_their_order_whoever_comes_first():
    note = with_section("", "Training", "loss 3")
    note = with_section(note, "Verdict", "passed")
    note = with_section(note, "Listen", "here")
    assert note == "### Verdict\npassed\n\n### Listen\nhere\n\n### Training\nloss 3"


def test_a_section_is_replaced_and_what_people_wrote_stays():
    note = "Mine.\n\n### My thoughts\nGood.\n\n### Verdict\nfailed\nagain"
    assert with_section(note, "Verdict", "passed") == "Mine.\n\n### Verdict\npassed\n\n### My thoughts\nGood."
