"""A captioning model behind OpenAI's protocol: Ollama, vLLM, LM Studio, llama.cpp's server, or a hosted one.

The key is read from the environment when it is needed and is kept out of every message.
"""

import base64
import io
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.answers import CaptionerDown, NoAnswer
from trainer.captioner_settings import CaptionerSettings
from trainer.viewing import view

if TYPE_CHECKING:
    from openai import OpenAI

_WARMER = 0.3  # temperature added per attempt: the same words would be refused again


class Endpoint:
    """Asks one question at a time; rate limits, time-outs and the server's faults are retried by the client."""

    def __init__(self, settings: CaptionerSettings) -> None:
        if find_spec("openai") is None:
            raise CaptionerDown(
                "`captioner.kind=endpoint` needs openai, which is not installed: pip install openai, or"
                " -e '.[captioner]' here"
            )
        self.settings = settings
        self.name = f"model {settings.model} at {settings.url}"
        self._key = read_key(settings)
        self._client: OpenAI | None = None

    def ask(self, prompt: str, picture: Path | None, *, attempt: int) -> str:
        """See `trainer.answers.Captioner`."""
        import openai

        content: list[Any] = [{"type": "text", "text": prompt}]
        if picture is not None:
            content.append({"type": "image_url", "image_url": {"url": _data_url(picture, self.settings.picture_px)}})
        try:
            answer = self._open().chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": content if picture else prompt}],
                temperature=self.settings.temperature + _WARMER * attempt,
                max_tokens=self.settings.max_tokens,
                stream=False,
            )
            choice = answer.choices[0]
            text, ended = choice.message.content, choice.finish_reason
            refusal = getattr(choice.message, "refusal", None)
        except openai.APITimeoutError as error:
            raise NoAnswer(
                f"no answer within {self.settings.timeout_s:g} s (captioner.timeout_s)", again=False
            ) from error
        except openai.APIConnectionError as error:
            raise CaptionerDown(
                f"nobody answers at captioner.url={self.settings.url}. Is the server running, and is the address right?"
            ) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise CaptionerDown(self._refused(error)) from error
        except openai.APIStatusError as error:
            raise NoAnswer(f"the server answered {error.status_code}: {self._quoted(error)}", again=False) from error
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError) as error:
            raise NoAnswer("the server's answer is not of OpenAI's protocol") from error
        if refusal:
            raise NoAnswer(f"the model refused: {str(refusal)[:80]}")
        if ended == "length":
            raise NoAnswer(
                f"the answer runs away, it has no end within captioner.max_tokens={self.settings.max_tokens}"
            )
        return text or ""

    def _open(self) -> "OpenAI":
        if self._client is None:
            from openai import OpenAI

            settings = self.settings
            self._client = OpenAI(
                base_url=settings.url,
                api_key=self._key or "none",  # local servers ask for none, the client for one
                timeout=settings.timeout_s,
                max_retries=settings.attempts - 1,
            )
        return self._client

    def _refused(self, error: Any) -> str:
        ways = {
            401: "the key is missing or wrong: put it into an environment variable and name that in"
            " captioner.key_variable",
            403: "the key may not use this model",
            404: f"there is no model {self.settings.model!r}, or the address lacks its /v1",
        }
        return f"captioner.url={self.settings.url} refuses ({error.status_code}): {ways[error.status_code]}"

    def _quoted(self, error: Any) -> str:
        said = " ".join(str(error.message).split())[:160]
        return said.replace(self._key, "***") if self._key else said


def read_key(settings: CaptionerSettings) -> str:
    """The API key from the environment; empty where none is asked for.

    Raises:
        CaptionerDown: the variable is not set.
    """
    if not settings.key_variable:
        return ""
    key = os.environ.get(settings.key_variable, "").strip()
    if not key:
        raise CaptionerDown(f"the environment variable {settings.key_variable} (captioner.key_variable) is not set")
    return key


def _data_url(picture: Path, longest_px: int) -> str:
    """The picture as JPEG, upright, over white, no larger than asked for."""
    shown = view(picture)
    shown.thumbnail((longest_px, longest_px))
    packed = io.BytesIO()
    shown.save(packed, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()
