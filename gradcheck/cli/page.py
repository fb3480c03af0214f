"""The page around the report: its styles, and three lines of script that open the case that a link names."""

from __future__ import annotations

#: Verdicts are told by sign and word too, for those who do not see the colours.
SYMBOLS = {"pass": "&#10003;", "fail": "&#10007;", "inconclusive": "?", "not run": "&#8211;"}

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #656d76; --rule: #d0d7de; --box: #f6f8fa;
  --pass: #d7f2df; --fail: #ffd8d3; --inconclusive: #fdecb5; --not-run: #e9ecef; --curve: #0550ae; --noise: #9a4a00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #9aa4af; --rule: #30363d;
  --box: #161b22; --pass: #12401f; --fail: #6b1a16; --inconclusive: #523f00; --not-run: #2a3038; --curve: #79c0ff;
  --noise: #ffa657 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 80em; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.3em } h2 { font-size: 1.15em; margin-top: 2em } h3 { font-size: 1em; margin: 1em 0 .3em }
h1, .note { padding: .4em .6em; border-radius: 6px }
.pass { background: var(--pass) } .fail { background: var(--fail) } .inconclusive { background: var(--inconclusive) }
.not-run { background: var(--not-run) }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .6em } li { padding: .1em .7em; border-radius: 6px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1em; color: var(--faint) } dd { margin: 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .6em 0 }
th, td { border: 1px solid var(--rule); padding: .25em .5em; text-align: left; font-weight: normal; vertical-align: top;
  white-space: pre-wrap } th { background: var(--box) }
.matrix td a { color: inherit; text-decoration: none; display: block; white-space: nowrap }
.matrix td a:hover, .matrix td a:focus { text-decoration: underline } .matrix b, .matrix small { display: block }
summary { cursor: pointer } summary span { display: inline-block; min-width: 7.5em; padding: 0 .4em; border-radius: 4px }
summary i, details p { color: var(--faint) } details > :not(summary) { margin-left: 1.2em }
details[open] { background: var(--box); padding-bottom: .5em } pre { white-space: pre-wrap }
svg { max-width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; fill: var(--ink) }
svg path { fill: none } .grid { stroke: var(--rule) } .curve { stroke: var(--curve) }
.dots { stroke: var(--curve); stroke-width: 6; stroke-linecap: round }
.noise { stroke: var(--noise); stroke-width: 1.5; stroke-dasharray: 5 4 }
.mid { text-anchor: middle } .end { text-anchor: end } .head { font-weight: bold }
"""

SCRIPT = """
const open = () => { const at = document.getElementById(location.hash.slice(1));
  const to = at && (at.tagName === "DETAILS" ? at : at.nextElementSibling); if (to) { to.open = true } };
addEventListener("hashchange", open); open();
"""

#: What `str.format_map` fills in.
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gradcheck: {{title}}</title>
<style>{STYLE.replace("{", "{{").replace("}", "}}")}</style>
</head>
<body>
<header>
<h1 class="{{state}}">gradcheck &#8211; {{title}}</h1>
<ul>{{totals}}</ul>
{{note}}
<dl>{{facts}}</dl>
</header>
<main>
<p>Each cell tells the worst verdict of its cases, the largest relative error that could have hidden in a case that passed
(its resolution), and how many passed.</p>
<div class="wide">{{matrix}}</div>
{{cases}}
</main>
<script>{SCRIPT.replace("{", "{{").replace("}", "}}")}</script>
</body>
</html>
"""
