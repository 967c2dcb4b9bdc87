from pathlib import Path

import pytest

from pipeline.audio.corpora.tables import read_table
from pipeline.audio.corpora.transcripts import Said, read_transcripts

FILES = ("a.wav", "b.wav", "sub/c.wav", "d.wav")
BROKEN = "its speaker is not known: the table of transcripts is broken"


@pytest.fixture
def read(tmp_path: Path):
    def transcripts(content: str | bytes, name: str = "list.csv"):
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return read_transcripts(tmp_path / name, FILES, "table")

    return transcripts


def test_quotes_are_read_as_the_authors_write_them(read):
    csv = read('file,text\na.wav,"She said ""no, thanks"",\nand left."\nsub\\c.wav,5" pipe\n')
    assert csv.of("a.wav").text == 'She said "no, thanks",\nand left.'
    assert csv.of("sub/c.wav").text == '5" pipe'
    tsv = read('client_id\tpath\tsentence\nann\ta.wav\t"No," she said.\nbob\tb.wav\tan open " quote\n', "train.tsv")
    assert tsv.of("a.wav") == Said('"No," she said.', "ann")
    assert tsv.of("b.wav") == Said('an open " quote', "bob")
    pipes = read('file|text\na.wav|"so\nb.wav|a, b\n')
    assert (pipes.of("a.wav").text, pipes.of("b.wav").text) == ('"so', "a, b")
    assert [*csv.remarks, *tsv.remarks, *pipes.remarks] == []


def test_an_open_quote_swallows_no_other_row(read):
    found = read('file,text,speaker\na.wav,hello,ann\nb.wav,"open,bob\nsub/c.wav,good,eve\nd.wav,"bye",dan\n')
    assert {file: found.of(file).speaker for file in FILES} == {
        "a.wav": "ann", "b.wav": None, "sub/c.wav": "eve", "d.wav": "dan"
    }  # fmt: skip
    assert found.of("b.wav").defect == BROKEN
    assert found.remarks == ["table: 1 lines cannot be read (line 3: a quote is not closed)."]


def test_what_names_nothing_or_twice_is_counted(read):
    found = read("file,text\na.wav,x\ngone.wav,y\na.wav,x\nb.wav,p\nb.wav,q\nalso.wav,z\nfar.wav,z\nout.wav,z\n")
    assert found.of("a.wav") == Said("x")
    assert found.of("b.wav") == Said(None, note="lines 5, 6 of the table of transcripts disagree on what is said")
    assert found.remarks == [
        "table: 4 files that it names are not there (line 3: gone.wav; line 7: also.wav; line 8: far.wav; …).",
        "table: 2 rows name a file again (line 4: a.wav; line 6: b.wav).",
    ]


def test_a_speaker_is_not_guessed_from_a_broken_table(read):
    found = read(b"file,text,speaker\na.wav,hello,ann\nb.wav,caf\xe9,bob\nsub/c.wav,three\nd.wav,four,\n")
    assert found.of("a.wav") == Said("hello", "ann")
    assert {found.of(file).defect for file in FILES[1:]} == {BROKEN}
    assert found.remarks == [
        "table: 2 lines cannot be read (line 3 is not UTF-8 (byte 0xe9); line 4 has 2 cells, not 3)."
    ]
    two = read("file,text,speaker\na.wav,x,ann\na.wav,x,bob\n")
    assert two.of("a.wav").defect == "lines 2, 3 of the table of transcripts disagree on who speaks"
    whole = read("file,text,speaker\na.wav,x,ann\nd.wav,four,\n")
    assert (whole.of("d.wav"), whole.of("b.wav").defect) == (Said("four", None), "")
    assert whole.of("b.wav").note == "the table of transcripts does not name it"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_that_can_be_told_are_read(read, encoding, newline):
    found = read(newline.join(("file,text,", "a.wav,Žluťoučký kůň,", "")).encode(encoding))
    assert (found.of("a.wav").text, list(found.remarks)) == ("Žluťoučký kůň", [])


def test_tables_that_are_none_are_refused(read):
    with pytest.raises(ValueError, match="has two columns for the text: file, text, sentence"):
        read("file,text,sentence\na.wav,x,y\n")
    with pytest.raises(ValueError, match="holds no row that can be read: line 2 is not UTF-8"):
        read(b"file,text\na.wav,caf\xe9\n")


def test_a_stray_quote_costs_one_line_and_little_time(tmp_path):
    lines = [f"{index}.wav,{chr(34) * (index % 100 == 0)}text" for index in range(2000)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    table = read_table(tmp_path / "list.csv", ",", quoted=True)
    assert (len(table.rows), len(table.broken)) == (1980, 20)
