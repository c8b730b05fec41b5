"""Captions by a model behind OpenAI's protocol, against a real server on loopback; and what counts as an answer."""

import base64
import io
import socket
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
from PIL import Image

from tests.chat_server import Asked, ChatServer, Reply, chat_server
from trainer.answers import PROMPTS, CaptionerDown, NoAnswer, checked_answer, prompt_for
from trainer.captioner_settings import CaptionerKind, CaptionerSettings, TaggerSettings
from trainer.captioning import Captioned, fault_list, made_by, make_captions
from trainer.captions import caption, texts
from trainer.examples import DatasetError, Example, read_examples
from trainer.settings import CaptionSettings, Strategy, Strip
from trainer.sheet import Row, picture_name

KEY = "sk-very-secret-0815"
VLM = CaptionSettings(Strategy.vlm)
SUBJECT = CaptionSettings(Strategy.subject_only)


@pytest.fixture
def plates(tmp_path: Path) -> list[Example]:
    """Three pictures, two with captions, all with tags."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for number, name in enumerate(("eye", "heart", "lung")):
        Image.new("RGB", (64, 48), (80 * number, 40, 40)).save(folder / f"{name}.png")
        (folder / f"{name}.tags").write_text(f"{name}, engraving")
        if name != "lung":
            (folder / f"{name}.txt").write_text(f"an engraving of the {name} of a man at the left, hatched lines")
    return read_examples(folder)


def ask(
    server: ChatServer,
    examples: list[Example],
    settings: CaptionSettings,
    rows: tuple[Row, ...] = (),
    **changes: object,
) -> Captioned:
    captioner = CaptionerSettings(CaptionerKind.endpoint, "tiny", server.url, timeout_s=5.0, attempts=2)
    kept = examples[0].path.parents[1] / "answers"
    return make_captions(
        examples,
        settings,
        replace(captioner, **changes),
        TaggerSettings(),
        rows=rows,
        kept=kept,  # type: ignore[arg-type]
    )


def said(made: Captioned, settings: CaptionSettings) -> list[str]:
    return [caption(example, settings, epoch=0, seed=0) for example in made.examples if example.path not in made.faults]


def test_a_model_sees_every_picture_and_its_words_are_trained_with(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply(' "A heart, red."\n')) as server:
        made = ask(server, plates, VLM)
    assert said(made, VLM) == ["A heart, red."] * 3
    assert made.by == f"model tiny at {server.url}, prompt vlm_v1"
    assert [asked.path for asked in server.asked] == ["/v1/chat/completions"] * 3
    sent = Image.open(io.BytesIO(base64.b64decode(server.asked[1].picture.partition(",")[2])))
    assert sent.size == (64, 48)
    assert sent.getpixel((5, 5))[0] == pytest.approx(80, abs=6)


def test_tags_without_style_words_go_along_with_the_picture(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply("a heart")) as server:
        ask(server, plates, CaptionSettings(Strategy.tags_vlm))
    assert "use those that are right, ignore the others: heart\n" in server.asked[1].prompt
    assert "emotion (" in server.asked[1].prompt


def test_a_caption_is_rewritten_and_one_that_is_missing_is_first_seen(plates: list[Example]) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply("a drawing of a lung" if asked.picture else asked.prompt.splitlines()[-1].split(" at the ")[0])

    with chat_server(reply) as server:
        made = ask(server, plates, SUBJECT)
    assert said(made, SUBJECT) == [
        "an engraving of the eye of a man",
        "an engraving of the heart of a man",
        "a drawing of a lung",
    ]
    assert [bool(asked.picture) for asked in server.asked] == [False, False, True, False]


def test_a_model_that_only_describes_leaves_the_rewriting_to_the_rules(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply("An etching of a lung, hatched lines")) as server:
        made = ask(server, plates, SUBJECT, rewrites=False)
    assert said(made, SUBJECT) == ["the eye of a man", "the heart of a man", "a lung"]
    assert len(server.asked) == 1
    assert made.by.startswith("rules")


def test_answers_are_kept_until_picture_prompt_or_model_changes(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply("a heart")) as server:
        for _ in range(2):
            ask(server, plates, VLM)
        assert len(server.asked) == 3
        ask(server, plates, VLM, model="other")
        assert len(server.asked) == 6
        Image.new("RGB", (64, 48), "white").save(plates[0].path)
        ask(server, plates, VLM)
        assert len(server.asked) == 7
        ask(server, plates[:2], SUBJECT)
        ask(server, plates[:2], replace(SUBJECT, strip=[Strip.style]))
        assert len(server.asked) == 11


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (Reply("I'm sorry, I can't help with that."), "refused"),
        (Reply(""), "empty"),
        (Reply("a heart " * 200), "runs away"),
        (Reply("a red heart and " * 8), "repeats itself"),
        (Reply("a heart", ended="length"), "no end"),
        (Reply({"choices": []}), "not of OpenAI's protocol"),
        (Reply({"detail": "?"}), "not of OpenAI's protocol"),
        (Reply(b"<html>busy</html>"), "not of OpenAI's protocol"),
        (Reply("\ufffd\ufffd\ufffd"), "no text"),
    ],
)
def test_an_unusable_answer_is_asked_for_again_then_reported_by_picture(
    plates: list[Example], first: Reply, told: str
) -> None:
    with chat_server(lambda asked: first if len(server.asked) == 1 else Reply("a heart")) as server:
        assert said(ask(server, plates, VLM), VLM) == ["a heart"] * 3
        assert server.asked[1].body["temperature"] > server.asked[0].body["temperature"]
    with chat_server(lambda asked: first if asked.picture == picture else Reply("an eye")) as server:
        picture = _sent(plates[1])
        made = ask(server, plates, VLM, model="second")
    assert said(made, VLM) == ["an eye"] * 2
    assert list(made.faults) == [plates[1].path]
    assert told in fault_list(made, VLM)
    assert "heart.png" in fault_list(made, VLM)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_then_the_picture_reported(plates: list[Example], status: int) -> None:
    busy = Reply({"error": {"message": f"busy, your key {KEY}"}}, status)
    with chat_server(lambda asked: busy if len(server.asked) == 1 else Reply("a heart")) as server:
        assert not ask(server, plates, VLM).faults
    with chat_server(lambda asked: busy) as server:
        made = ask(server, plates, VLM)
    assert len(made.faults) == 3
    assert len(server.asked) == 6
    assert str(status) in fault_list(made, VLM)


def test_a_server_that_fails_on_picture_after_picture_is_left_in_peace(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply({}, 503)) as server, pytest.raises(CaptionerDown, match="5 pictures in a row"):
        ask(server, plates * 3, VLM, attempts=1)
    assert len(server.asked) == 5


def test_a_picture_that_takes_too_long_is_reported_and_the_others_go_on(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply("a heart", seconds=0.8 if asked.picture == picture else 0.0)) as server:
        picture = _sent(plates[0])
        made = ask(server, plates, VLM, timeout_s=0.4, attempts=1)
    assert "no answer within 0.4 s" in made.faults[plates[0].path]
    assert len(said(made, VLM)) == 2


def test_a_partial_run_goes_on_where_it_stopped(plates: list[Example]) -> None:
    with chat_server(lambda asked: Reply("a heart") if len(server.asked) < 3 else Reply({}, 401)) as server:
        with pytest.raises(CaptionerDown, match=r"refuses \(401\).*captioner\.key_variable"):
            ask(server, plates, VLM)
        server.reply = lambda asked: Reply("a lung")
        assert said(ask(server, plates, VLM), VLM) == ["a heart", "a heart", "a lung"]
        assert len(server.asked) == 4


def test_an_endpoint_that_is_down_or_lacks_the_model_is_one_message(plates: list[Example]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(CaptionerDown, match=r"nobody answers at captioner\.url="):
        ask(ChatServer(lambda asked: Reply(), url), plates, VLM, attempts=1)
    with chat_server(lambda asked: Reply({}, 404)) as server, pytest.raises(CaptionerDown, match="no model 'tiny'"):
        ask(server, plates, VLM)
    assert len(server.asked) == 1


def test_the_key_comes_from_the_environment_and_is_in_no_message_and_no_file(
    plates: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(lambda asked: Reply({"error": {"message": f"bad key {KEY}"}}, 400)) as server:
        with pytest.raises(CaptionerDown, match=r"STYLESWEEP_TEST_KEY.*not set"):
            ask(server, plates, VLM, key_variable="STYLESWEEP_TEST_KEY")
        monkeypatch.setenv("STYLESWEEP_TEST_KEY", KEY)
        made = ask(server, plates, VLM, key_variable="STYLESWEEP_TEST_KEY")
        assert server.asked[0].key == f"Bearer {KEY}"
        assert "bad key ***" in fault_list(made, VLM)
        server.reply = lambda asked: Reply("a heart")
        made = ask(server, plates, VLM, key_variable="STYLESWEEP_TEST_KEY")
        monkeypatch.delenv("STYLESWEEP_TEST_KEY")
        assert said(ask(server, plates, VLM, key_variable="STYLESWEEP_TEST_KEY"), VLM) == ["a heart"] * 3  # kept
    kept = "".join(file.read_text() for file in (plates[0].path.parents[1] / "answers").iterdir())
    assert KEY not in kept + made.by + repr(made)


def test_no_model_is_asked_about_what_a_person_wrote(plates: list[Example]) -> None:
    row = Row(picture_name(plates[0].path), "vlm", text="an eye, mine", made="an eye")
    with chat_server(lambda asked: Reply("a heart")) as server:
        made = ask(server, plates, VLM, rows=(row,))
    assert texts(made.examples[0], VLM) == ("an eye, mine",)
    assert len(server.asked) == 2


def test_without_a_model_the_way_is_told_and_what_needs_one_is_refused(plates: list[Example]) -> None:
    none = CaptionerSettings()
    assert make_captions(plates[:2], SUBJECT, none, TaggerSettings(), kept=Path("x")).by == "rules, without a model"
    assert made_by(CaptionSettings(Strategy.original), none, TaggerSettings()) == "the sidecar's text"
    with pytest.raises(DatasetError, match=r"captions\.strategy=vlm.*captioner=ollama"):
        make_captions(plates, VLM, none, TaggerSettings(), kept=Path("x"))


@pytest.mark.parametrize(
    "answer",
    ["a heart", '"a heart"', "Sure! a heart", "Caption: a heart", "<think>a lung?</think>\n a  heart", "**a heart**"],
)
def test_what_models_put_around_a_caption_is_taken_off(answer: str) -> None:
    assert checked_answer(answer) == "a heart"


def test_a_caption_that_only_looks_like_a_refusal_is_kept() -> None:
    assert checked_answer("I-beams and a sorry dog") == "I-beams and a sorry dog"
    with pytest.raises(NoAnswer, match="refused"):
        checked_answer("I cannot describe this picture")


@pytest.mark.parametrize(
    ("strategy", "digest"),
    [
        (Strategy.vlm, "f07d45cc"),
        (Strategy.tags_vlm, "f809e972"),
        (Strategy.edited, "8b56ea7b"),
        (Strategy.subject_only, "7711cb82"),
    ],
)
def test_a_changed_prompt_gets_a_new_version(strategy: Strategy, digest: str) -> None:
    file = Path(__file__).parents[2] / "trainer" / "prompts" / f"{PROMPTS[strategy]}.txt"
    assert blake2b(file.read_bytes(), digest_size=4).hexdigest() == digest, "write it as a new file, _v2, _v3, …"
    filled = prompt_for(strategy, (Strip.style,), caption="a heart", tags="heart")
    assert "$" not in filled
    assert len(filled) < 900


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: CaptionerSettings(CaptionerKind.endpoint, "tiny"), "captioner.url.*must be given"),
    (lambda: CaptionerSettings(CaptionerKind.local), "captioner.model.*must be given"),
    (lambda: CaptionerSettings(url="http://me:word@host/v1"), "captioner.url.*password"),
    (lambda: CaptionerSettings(url="host:11434"), "captioner.url.*http"),
    (lambda: CaptionerSettings(CaptionerKind.local, "m", task="<CAPTION>"), "captioner.task.*rewrites=false"),
    (lambda: CaptionerSettings(attempts=0), "captioner.attempts.*0"),
    (lambda: CaptionerSettings(timeout_s=0), "captioner.timeout_s.*0"),
    (lambda: TaggerSettings(threshold=1.0), "tagger.threshold.*1.0"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_each_rule_names_setting_and_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def _sent(example: Example) -> str:
    """The picture as the server gets it."""
    from trainer.endpoint import _data_url

    return _data_url(example.path, 1024)
