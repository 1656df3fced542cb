"""The shapes of well-known tokens, for `utils.redaction`. Data, and how it is applied to one text.

A shape is looked for only where one of its `marks` is in the text. Each takes time that is linear in the text's length:
what may repeat without a limit is either the end of the shape, so that it can't fail after a long run, or it can begin
only once in a run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """What a token looks like.

    Attributes:
        marks: One of these is in each token of the shape.
        pattern: Where it has a group `keep`, that stays in front of what is hidden.
    """

    marks: tuple[str, ...]
    pattern: re.Pattern[str]

    def hide(self, text: str, hidden: str) -> str:
        """The text with `hidden` in the place of each token."""
        if "keep" in self.pattern.groupindex:
            return self.pattern.sub(lambda match: match["keep"] + hidden, text)
        return self.pattern.sub(hidden, text)


def _shape(marks: str, pattern: str, before: str = "A-Za-z0-9", flags: int = 0) -> Shape:
    """A shape that does not begin in the middle of a word."""
    return Shape(tuple(marks.split()), re.compile(f"(?<![{before}])(?:{pattern})", flags))


_HEADER: Final = r"(?P<keep>authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:[A-Za-z]{1,20}\s{1,3})?)[^\s\"',;]{6,}"

SHAPES: Final = (
    # Code and packages.
    _shape("ghp_ gho_ ghu_ ghs_ ghr_", "gh[opsur]_[A-Za-z0-9]{30,}"),
    _shape("github_pat_", r"github_pat_\w{30,}"),
    _shape(
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent- glimt- gloas-",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas)-[\w.-]{16,}",
    ),
    _shape("ATATT3 ATCTT3 ATBB", r"(?:ATATT3|ATCTT3)[\w=-]{30,}|ATBB[A-Za-z0-9]{28,}"),
    _shape("npm_ pypi-Ag rubygems_", r"npm_[A-Za-z0-9]{36,}|pypi-Ag[\w-]{30,}|rubygems_[0-9a-f]{40,}"),
    _shape("dckr_pat_ dckr_oat_", r"dckr_[op]at_[\w-]{20,}"),
    # Models and training.
    _shape("hf_ api_org_", "hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}"),
    _shape("sk- pk-lf- ", r"(?:sk|pk)-(?=[\w-]{0,80}\d)[\w-]{20,}"),  # OpenAI, Anthropic, OpenRouter, Langfuse, …
    _shape("gsk_ r8_ fw_ pcsk_ nvapi-", r"(?:gsk|r8|fw|pcsk)_\w{20,}|nvapi-[\w-]{20,}"),
    _shape("xai- pplx- lsv2_ tgp_v1_", r"(?:xai|pplx)-[A-Za-z0-9]{20,}|lsv2_[a-z]{2}_\w{20,}|tgp_v1_[\w-]{20,}"),
    _shape("wandb_v1_ KGAT_", r"wandb_v1_\w{20,}|KGAT_[A-Za-z0-9]{20,}"),
    _shape("local-", "local-[0-9a-f]{40}(?![0-9a-f])"),  # W&B on one's own server.
    # Clouds.
    _shape("AKIA ASIA ABIA ACCA", "(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![0-9A-Z])"),
    _shape("AIza", r"AIza[\w-]{35}"),
    _shape("ya29. GOCSPX- 1//0", r"ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{30,}"),
    _shape("Q~", r"[\w.~-]{3}\dQ~[\w.~-]{31,34}", before=r"\w.~-"),  # Azure, a client's secret.
    _shape("dop_v1_ doo_v1_ dor_v1_", "do[opr]_v1_[0-9a-f]{40,}"),
    _shape("dapi", "dapi[0-9a-f]{32}(?:-[0-9])?(?![0-9a-f])"),
    _shape("hvs. hvb. hvr.", r"hv[bsr]\.[\w-]{20,}"),
    _shape(".atlasv1.", r"(?P<keep>)[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,}"),
    _shape("glsa_ glc_ NRAK- PMAK-", r"glsa_\w{30,}|glc_[\w+/=]{30,}|(?:NRAK|PMAK)-[\w-]{20,}"),
    _shape("sntrys_ sntryu_ dp.pt. dp.st.", r"sntry[su]_[\w+/=-]{30,}|dp\.[ps]t\.[\w.]{30,}"),
    # Messages and payment.
    _shape("xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xoxe.", r"xox[a-eoprs][.-][\w.%-]{10,}"),
    _shape("xapp-", r"xapp-\d-[\w-]{10,}"),
    _shape(
        "hooks.slack.com/", r"(?P<keep>hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/-]{10,}", before=r"\w"
    ),
    _shape("/api/webhooks/", r"(?P<keep>discord(?:app)?\.com/api/webhooks/)\d{5,25}/[\w-]{20,}", before=r"\w"),
    _shape(":AA", r"\d{8,12}:AA[\w-]{32,}"),  # Telegram.
    _shape(
        "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", "[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{20,}"
    ),
    _shape("SG.", r"SG\.[\w-]{16,40}\.[\w-]{16,80}"),
    _shape("key-", r"key-[0-9a-f]{32}(?![0-9a-f])"),  # Mailgun.
    _shape("-us", r"[0-9a-f]{32}-us\d{1,2}(?!\d)"),  # Mailchimp.
    _shape("SK", "SK[0-9a-f]{32}(?![0-9a-f])"),  # Twilio.
    _shape("shpat_ shpca_ shppa_ shpss_", "shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}"),
    _shape("sq0atp- sq0csp- EAAA", r"sq0[ac][ts]p-[\w-]{22,}|EAAA[\w-]{56,}"),
    _shape(
        "lin_api_ ntn_ figd_ nfp_ sbp_ pat",
        r"(?:lin_api|ntn|nfp|sbp)_[A-Za-z0-9]{32,}|figd_[\w-]{30,}|pat[A-Za-z0-9]{14}\.[0-9a-f]{64}",
    ),
    _shape("pscale_", r"pscale_(?:tkn|oauth|pw)_[\w.=-]{30,}"),
    _shape("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    # Of any service.
    _shape("eyJ", r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,3}", before=r"\w-"),  # JWT and JWE.
    _shape("eyJ", r"eyJ[A-Za-z0-9+/_-]{40,}={0,2}"),  # Base64 of JSON: Neptune.
)
"""Each token of these has 15 letters, digits, `_` and `-` in a row, which few other texts have."""

HEADERS: Final = (
    _shape(
        "PRIVATE KEY",
        # Up to its end mark, or as far as it can go on: the text may have been cut.
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\\\s:,.]|-(?!----))*+"
        r"(?:-----END [A-Z0-9 ]{0,40}-----)?",
    ),
    _shape("uthorization UTHORIZATION", _HEADER, flags=re.IGNORECASE),
    _shape("earer EARER", r"(?P<keep>bearer\s{1,3})(?=[\w.~+/-]{0,60}\d)[\w.~+/-]{16,}=*", flags=re.IGNORECASE),
    _shape("asic ASIC", r"(?P<keep>basic\s{1,3})[A-Za-z0-9+/]{8,}={1,2}", flags=re.IGNORECASE),
    _shape(
        "machine", r"(?P<keep>machine\s{1,9}\S{1,200}\s{1,9}login\s{1,9}\S{1,200}\s{1,9}password\s{1,9})\S+"
    ),  # .netrc
    _shape(
        "AccountKey= SharedAccessKey= SharedAccessSignature= accountkey= sharedaccesskey=",
        r"(?P<keep>(?:Account|SharedAccess)(?:Key|Signature)=)[^;\s\"']{8,}",
        flags=re.IGNORECASE,
    ),
)
"""The words in front of these say what they are, so they may be short."""

_RUN: Final = re.compile(r"[\w-]{15,}")
_TOKEN_MARKS: Final = tuple((mark, shape) for shape in SHAPES for mark in shape.marks)
_HEADER_MARKS: Final = tuple((mark, shape) for shape in HEADERS for mark in shape.marks)


def hide_tokens(text: str, hidden: str) -> str:
    """The text with `hidden` in the place of each token: most often a microsecond and the same text."""
    for mark, shape in _TOKEN_MARKS if _RUN.search(text) else ():
        if mark in text:
            text = shape.hide(text, hidden)
    for mark, shape in _HEADER_MARKS:
        if mark in text:
            text = shape.hide(text, hidden)
    return text
