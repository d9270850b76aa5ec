"""E-mail addresses, IP addresses and payment cards in text, found and replaced."""

import ipaddress
import re

from keras_llm.core import checks

KINDS = ("email", "ip_address", "payment_card")

# Possessive and bounded, so that no text takes more than a few looks at a character.
_LETTERS = "A-Za-z0-9À-ɏ"
_EMAIL = re.compile(
    rf"(?<![{_LETTERS}._%+'-])[{_LETTERS}_%+'-][{_LETTERS}._%+'-]{{0,63}}+"
    rf"@(?:[{_LETTERS}-]{{1,63}}+\.){{1,8}}[A-Za-zÀ-ɏ]{{2,24}}(?![{_LETTERS}-])"
)
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP_4 = re.compile(
    rf"(?<![{_LETTERS}_.])(?:{_BYTE}\.){{3}}{_BYTE}(?![{_LETTERS}_]|\.\d)"
)
# A number of four parts after one of these counts versions or sections.
_NUMBERED = re.compile(r"(?:version|release|ver|rev|build|section|chapter|§)[.:]?\s?$")
_IP_6 = re.compile(
    rf"(?<![{_LETTERS}_:.])[23][0-9A-Fa-f]{{3}}:(?:[0-9A-Fa-f]{{0,4}}:){{1,6}}"
    rf"[0-9A-Fa-f]{{0,4}}(?![{_LETTERS}_:])"
)
# Lengths and first digits by network: Visa, Mastercard, Discover, JCB and UnionPay
# have 16 or 19, American Express 15, Diners Club 14.
_CARD = re.compile(
    rf"(?<![{_LETTERS}_.,-])(?:"
    r"(?:4\d|5[1-5]|2[2-7]|6[0245]|35)\d\d([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|3[47]\d\d([ -]?)\d{6}\2\d{5}"
    r"|3[0689]\d\d([ -]?)\d{6}\3\d{4}"
    rf")(?![{_LETTERS}_]|[.,-]\d)"
)
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")  # The sum of its digits.


def scrub(text: str, kinds: tuple[str, ...] = KINDS) -> tuple[str, dict[str, int]]:
    """Returns the text with personal data replaced, and how many of each kind.

    - "email": addresses of Latin letters; `[email]`;
    - "ip_address": of version 4 or 6 where the internet can reach them, so not
      127.0.0.1 or 192.168.0.1, and no number that follows a word such as "version";
      `[ip address]`;
    - "payment_card": 14 to 19 digits in a network's form with the right check digit
      (ISO/IEC 7812-1); `[payment card]`.

    Names, postal addresses and telephone numbers are not looked for: they cannot be
    told by their form. The time grows with the length of the text, whatever it holds.

    Raises:
        ValueError: An unknown kind.

    >>> scrub("Ask ada@example.org (8.8.4.4), not 127.0.0.1.")
    ('Ask [email] ([ip address]), not 127.0.0.1.', {'email': 1, 'ip_address': 1})
    """
    counts: dict[str, int] = {}
    for kind in kinds:
        checks.check_choice("kinds", kind, KINDS)
        for pattern, accepted in _RULES[kind]:
            placeholder = f"[{kind.replace('_', ' ')}]"
            text, count = _replaced(text, pattern, accepted, placeholder)
            if count:
                counts[kind] = counts.get(kind, 0) + count
    return text, counts


def _replaced(text, pattern, accepted, placeholder):
    count = 0

    def placed(match):
        nonlocal count
        if not accepted(match):
            return match.group()
        count += 1
        return placeholder

    return pattern.sub(placed, text), count


def _is_address(match: re.Match) -> bool:
    start = match.start()
    before = match.string[max(0, start - 12) : start].lower()
    if _NUMBERED.search(before):
        return False
    return ipaddress.IPv4Address(match.group()).is_global


def _is_long_address(match: re.Match) -> bool:
    try:
        return ipaddress.IPv6Address(match.group()).is_global
    except ValueError:
        return False


def _has_check_digit(match: re.Match) -> bool:
    digits = match.group().replace(" ", "").replace("-", "").encode()
    total = sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED))
    return (total - ord("0") * len(digits)) % 10 == 0


_RULES = {
    "email": [(_EMAIL, lambda match: True)],
    "ip_address": [(_IP_4, _is_address), (_IP_6, _is_long_address)],
    "payment_card": [(_CARD, _has_check_digit)],
}
