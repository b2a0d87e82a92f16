"""report.html: one file that needs nothing else, from a verdict, two traces and run.json."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate import explain
from vchan_testbed.validate.report import judged, measured, recorded, waited
from vchan_testbed.validate.report.blocks import Page
from vchan_testbed.validate.verdict import Verdict


def html_of(
    run: Path, facts: recorded.Facts, verdict: Verdict, server: Trace, client: Trace
) -> str:
    """The page as text. `facts` is what run.json holds."""
    # Names, messages and console text come from guests and from files: all of it is escaped. The
    # pictures and the style sheet are the only markup that is let through, and both are ours.
    environment = Environment(
        loader=PackageLoader("vchan_testbed.validate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    style = resources.files("vchan_testbed.validate.report").joinpath("report.css").read_text()
    template = environment.get_template("report.html.j2")
    page = page_of(run, facts, verdict, server, client)
    return template.render(page=page, style=Markup(style))


def page_of(
    run: Path, facts: recorded.Facts, verdict: Verdict, server: Trace, client: Trace
) -> Page:
    """What the page shows, in its order: the verdict first, then what explains it."""
    figures = measured.measure(server, client)
    explained, checked = judged.sections_of(verdict, figures, facts)
    return Page(
        title=f"vchan-testbed: {(facts.get('experiment') or {}).get('name') or run.resolve().name}",
        subtitle=_subtitle(facts, verdict),
        banner=explain.xen_words(verdict),
        headline=explain.headline(verdict),
        tone=judged.tone_of(verdict),
        badges=judged.badges_of(verdict),
        explanation=(*explain.details(verdict), *verdict.notes, *explain.last_words(verdict)),
        sections=(
            *explained,
            *([waited.section_of(verdict.bounded)] if verdict.bounded else []),
            *measured.sections_of(figures),
            checked,
            *recorded.sections_of(
                run, facts, verdict.spec_hash, {"server": server, "client": client}
            ),
        ),
    )


def _subtitle(facts: recorded.Facts, verdict: Verdict) -> str:
    host = verdict.host.get("kind") or "unknown host"
    parts = [f"Run {facts.get('run_id') or 'without an id'}", f"on {host}"]
    if verdict.domain_type != "none":
        parts.append(f"domains: {verdict.domain_type}")
    if facts.get("started"):
        parts.append(f"started {facts['started']}")
    return " · ".join(str(part) for part in parts)
