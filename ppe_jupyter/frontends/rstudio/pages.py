"""What the RStudio tab shows when it is not RStudio: why, and what to do. Pure; everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# The lab's own colours where the page is in one of its tabs, else the system's.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --back: #fff; --text: #212121; --dim: #616161; --line: #e0e0e0;
    --brand: #1976d2; --code: #f5f5f5; --on-brand: #fff; }}
  @media (prefers-color-scheme: dark) {{ :root {{ --back: #111; --text: #e0e0e0; --dim: #aaa; --line: #424242;
    --brand: #64b5f6; --code: #212121; --on-brand: #111; }} }}
  * {{ box-sizing: border-box; }}
  body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 24px; background: var(--back);
    color: var(--text); font: 14px/1.5 var(--font, system-ui, sans-serif); }}
  main {{ width: 100%; max-width: 560px; }}
  h1 {{ font-size: 20px; line-height: 1.3; font-weight: 600; margin: 0 0 8px; }}
  p {{ margin: 0 0 16px; overflow-wrap: anywhere; white-space: pre-line; }}
  ul {{ list-style: none; margin: 0 0 20px; padding: 0; border-top: 1px solid var(--line); }}
  li {{ padding: 10px 0; border-bottom: 1px solid var(--line); }}
  code {{ background: var(--code); padding: 1px 5px; border-radius: 3px; font-size: 13px; overflow-wrap: anywhere; }}
  .dim {{ color: var(--dim); }}
  a {{ color: var(--brand); }}
  a.button {{ display: inline-block; padding: 6px 14px; border-radius: 3px; background: var(--brand);
    color: var(--on-brand); text-decoration: none; }}
  a:focus-visible {{ outline: 2px solid var(--brand); outline-offset: 2px; }}
  progress {{ width: 100%; accent-color: var(--brand); }}
</style>
<script>
  try {{
    const lab = parent !== window && getComputedStyle(parent.document.body);
    const names = {{ back: 'layout-color1', text: 'ui-font-color1', dim: 'ui-font-color2', line: 'border-color2',
      brand: 'brand-color1', code: 'layout-color2', font: 'ui-font-family', 'on-brand': 'ui-inverse-font-color1' }};
    for (const [ours, theirs] of Object.entries(names)) {{
      const value = lab && lab.getPropertyValue('--jp-' + theirs).trim();
      if (value) document.documentElement.style.setProperty('--' + ours, value);
    }}
  }} catch (notTheLabs) {{}}
  {reload}
</script>
</head>
<body>
<main role="{role}">
<h1>{title}</h1>
<p>{text}</p>
{rest}
</main>
</body>
</html>
"""
AGAIN = "setTimeout(() => location.reload(), {milliseconds});"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: ``hints`` are (words, what to type), ``links`` (name, address) of other clusters.

    ``again_seconds``: it loads itself again after so long (0: never; a ``button`` leads to the address ``to``, which
    is the page's own if not given).
    """

    title: str
    text: str
    hints: Sequence[tuple[str, str]] = ()
    links: Sequence[tuple[str, str]] = ()
    again_seconds: float = 0.0
    button: str = "Try again"
    to: str = ""

    def html(self) -> bytes:
        """The page as UTF-8."""
        items = [f"<li>{escape(words)} <code>{escape(code)}</code></li>" for words, code in self.hints]
        items += [
            f'<li>Open <a href="{escape(where)}">RStudio on {escape(name)}</a></li>'
            for name, where in self.links
        ]
        rest = f"<ul>{''.join(items)}</ul>" if items else ""
        if self.again_seconds:
            rest += '<progress aria-label="waiting"></progress>'
        elif self.button:
            rest += f'<a class="button" href="{escape(self.to)}">{escape(self.button)}</a>'
        return PAGE.format(
            title=escape(self.title),
            text=escape(self.text[:1].upper() + self.text[1:]),
            rest=rest,
            role="status" if self.again_seconds else "alert",
            reload=AGAIN.format(milliseconds=int(1000 * self.again_seconds)) if self.again_seconds else "",
        ).encode()

    def response(self) -> bytes:
        """The HTTP answer: not available now, nothing to be kept."""
        body = self.html()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nRetry-After: 2\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


def redirect(where: str) -> bytes:
    """An answer that leads on to an address relative to this one."""
    return (
        f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def plain(text: str, *, status: str = "200 OK") -> bytes:
    """A short answer for programs."""
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
