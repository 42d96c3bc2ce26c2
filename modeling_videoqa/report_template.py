"""The templates of the pages of `report.py`: HTML and SVG, without scripts or anything from outside.

They are rendered with autoescape on. Every attribute stands in double quotes, and text of the data comes into no other
place than a text or a quoted attribute, which are what autoescape protects. The policy in the head is a second wall.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --panel: #f5f7f9; --line: #d3d9df;
  --bar: #9aa5b1; --right: #0072b2; --wrong: #c84e00;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #a0abb6; --paper: #14181c; --panel: #1d2328; --line: #39424b;
    --bar: #6c7884; --right: #56b4e9; --wrong: #f0883e;
  }
}
@media print {
  :root { color-scheme: light; }
  article, section.short, tr, figure, svg { break-inside: avoid; }
  h2, h2 + p, caption, thead { break-after: avoid; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 0 0 .3rem; }
h4 { font-size: .9rem; margin: .9rem 0 .2rem; color: var(--soft); }
p { margin: .4rem 0; max-width: 46rem; }
.soft, caption, figcaption, small { color: var(--soft); font-size: .875rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.cards > div { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.cards dt { color: var(--soft); } .cards dd { margin: 0; }
.cards dd.value { font-size: 1.7rem; font-weight: 600; line-height: 1.25; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .2rem; }
th, td { text-align: left; vertical-align: top; padding: .22rem .6rem .22rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } thead th { color: var(--soft); font-size: .875rem; }
th.number, td.number { text-align: right; white-space: nowrap; }
th.wide, td.wide { width: 50%; min-width: 9rem; } th.half, td.half { min-width: 6.2rem; }
.share { display: flex; align-items: center; gap: .5rem; }
.share > span { flex: 0 0 4.2rem; text-align: right; } .share > svg { flex: 1 1 3rem; width: 3rem; }
svg { display: block; overflow: visible; margin: .2rem 0; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg text.soft { fill: var(--soft); font-size: 11px; }
.back { fill: var(--panel); stroke: var(--line); } .bar { fill: var(--bar); }
.truth { fill: none; stroke: var(--right); stroke-dasharray: 3 2; } .lane { fill: var(--ink); opacity: .75; }
.bar.right { fill: var(--right); } .bar.wrong { fill: var(--wrong); }
.tick { stroke: var(--ink); stroke-width: 2; } .whisker { stroke: var(--ink); stroke-width: 1.5; }
.dashed { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
.dot { fill: var(--paper); stroke: var(--ink); stroke-width: 1.5; }
article { border: 1px solid var(--line); border-radius: .4rem; padding: .8rem; margin: .9rem 0; }
th.other { font-weight: 400; } .mark { font-weight: 600; white-space: nowrap; }
.key {
  display: inline-block; min-width: 1.7em; padding: 0 .2em; text-align: center; font-size: .8rem; font-weight: 700;
  border: 1px solid currentColor; border-radius: .25rem;
}
.key.off { border-color: transparent; } .key.off::after { content: "\\a0"; }
ol.said { list-style: none; margin: 0; padding: 0; }
ol.said > li.line { display: grid; grid-template-columns: 2.6rem max-content minmax(0, 1fr); gap: .4rem; }
ol.said li.line { padding: .1rem .3rem; } ol.said li.marked { background: var(--panel); font-weight: 500; }
.time { color: var(--soft); font-size: .875rem; text-align: right; font-variant-numeric: tabular-nums; }
summary { color: var(--soft); font-size: .875rem; cursor: pointer; padding: .1rem .3rem; }
.frames { display: flex; flex-wrap: wrap; gap: .7rem; margin: .6rem 0 0; }
figure { margin: 0; max-width: min(13rem, 47%); }
figure img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
svg.diagram { width: 100%; max-width: 30rem; height: auto; margin: .6rem 0; }
"""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{% include "style.css" %}</style>
</head>
<body>
<header>
<h1 dir="auto">{{ title }}</h1>
{% if facts %}
<dl class="facts">
{% for name, value in facts.items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}
</header>
<main>
{% block main %}{% endblock %}
</main>
</body>
</html>
"""

# What both pages are made of.
PARTS = """\
{% macro bar(share, kind="", chance=none, interval=none) %}
<svg width="100%" height="14" role="img" aria-label="{{ share | percent }}">
<rect class="back" width="100%" height="14"/>
<rect class="bar {{ kind }}" width="{{ share | place }}" height="14"/>
{% if interval is not none %}
<line class="whisker" x1="{{ interval[0] | place }}" x2="{{ interval[1] | place }}" y1="7" y2="7"/>
{% endif %}
{% if chance is not none %}
<line class="tick" x1="{{ chance | place }}" x2="{{ chance | place }}" y1="-3" y2="17" stroke-dasharray="3 2"/>
{% endif %}
</svg>
{% endmacro %}

{% macro share(value, chance=none, interval=none) %}
<div class="share"><span>{{ value | percent }}</span>{{ bar(value, "", chance, interval) }}</div>
{% endmacro %}

{% macro sentence(line, lanes) %}
<li class="line{{ ' marked' if line.marks else '' }}">
<span class="time">{{ line.start | seconds }}</span>
<span>
{% for lane in lanes %}
{# an empty place keeps the marks of all sentences in columns #}
{% set is_in = lane.key in line.marks %}
<span class="key{{ '' if is_in else ' off' }}">{{ lane.key if is_in else "" }}</span>
{% endfor -%}
</span>
<span dir="auto">{% if line.speaker %}<b>{{ line.speaker }}:</b> {% endif %}{{ line.text }}</span>
</li>
{% endmacro %}

{% macro choices(card) %}
<div class="scroll"><table>
<thead><tr><th scope="col">choice</th>
{% for answer in card.answers %}
<th scope="col" class="half">{{ answer.name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for choice in card.choices %}
{% set is_right = loop.index0 == card.label %}
<tr><th scope="row"{% if not is_right %} class="other"{% endif %}><span dir="auto">{{ choice }}</span>
{% if is_right %}
<span class="mark right">✓ right</span>
{% endif %}
</th>
{% set place = loop.index0 %}
{% for answer in card.answers %}
<td class="half">
{% if answer.probabilities is none %}
no prediction
{% else %}
{% set is_chosen = answer.label == place %}
{% set kind = "right" if is_right else "wrong" if is_chosen and card.label is not none else "" %}
{{ bar(answer.probabilities[place], kind) }}
{{ answer.probabilities[place] | percent }}
{% if is_chosen %}
<span class="mark {{ kind }}">{{ "" if card.label is none else "✓" if is_right else "✗" }} chosen</span>
{% endif %}
{% endif %}
</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}

{% macro timeline(card) %}
<h4>Where in the clip</h4>
<div class="scroll"><table>
<thead><tr><th scope="col">span</th><th scope="col" class="wide">0 to {{ card.length | seconds }} s</th>
<th scope="col" class="number">seconds</th><th scope="col" class="number">IoU</th></tr></thead>
<tbody>
{% if card.sentences %}
<tr><th scope="row" class="soft">sentences</th>
<td class="wide"><svg width="100%" height="16" role="img" aria-label="{{ card.sentences | length }} sentences">
<rect class="back" width="100%" height="16"/>
{% for line in card.sentences %}
{# two rows in turn, so that one sentence ends visibly where the next begins #}
<rect class="bar" x="{{ line.left | place }}" width="{{ line.width | place }}"
 y="{{ loop.index0 % 2 * 8 }}" height="8"/>
{% endfor %}
</svg></td><td></td><td></td></tr>
{% endif %}
{% for lane in card.lanes %}
<tr><th scope="row"><span class="key">{{ lane.key }}</span> {{ lane.name }}</th>
<td class="wide"><svg width="100%" height="16" role="img" aria-label="{{ lane.name }}">
<rect class="back" width="100%" height="16"/>
{% if lane.span %}
<rect class="{{ 'bar right' if lane.is_truth else 'lane' }}" x="{{ lane.left | place }}"
 width="{{ lane.width | place }}" y="2" height="12"/>
{% endif %}
{% if card.lanes[0].span and not lane.is_truth %}
<rect class="truth" x="{{ card.lanes[0].left | place }}" width="{{ card.lanes[0].width | place }}" height="16"/>
{% endif %}
</svg></td>
<td class="number">{{ lane.span[0] | seconds ~ " to " ~ lane.span[1] | seconds if lane.span else "none" }}</td>
<td class="number">{{ "%.2f" | format(lane.iou) if lane.iou is not none else "" }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}

{% macro question(card) %}
<article>
<h3 dir="auto">{{ card.question }}</h3>
<p class="soft">question {{ card.qid }} · clip {{ card.clip_id }} · {{ card.group }}</p>
{{ choices(card) }}
{% if card.has_span %}
{{ timeline(card) }}
{% endif %}
{% if card.frames %}
<div class="frames">
{% for frame in card.frames %}
<figure><img src="{{ frame.uri }}" width="{{ frame.width }}" height="{{ frame.height }}"
 alt="frame at {{ frame.time | seconds }} seconds"><figcaption>
{% for key in frame.marks %}<span class="key">{{ key }}</span> {% endfor %}
{{ frame.time | seconds }} s</figcaption></figure>
{% endfor %}
</div>
{% endif %}
{% if card.passages %}
<h4>What is said, and from which second</h4>
<ol class="said">
{% for passage in card.passages %}
{% if passage.is_folded %}
<li><details><summary>{{ passage.sentences | length }} more sentences</summary><ol class="said">
{% for line in passage.sentences %}
{{ sentence(line, card.lanes) }}
{% endfor %}
</ol></details></li>
{% else %}
{% for line in passage.sentences %}
{{ sentence(line, card.lanes) }}
{% endfor %}
{% endif %}
{% endfor %}
</ol>
{% endif %}
{% for answer in card.answers if answer.evidence %}
<h4>Evidence of <span class="key">{{ answer.key }}</span> {{ answer.name }}</h4>
<ul>
{% for text in answer.evidence %}
<li dir="auto">{{ text }}</li>
{% endfor %}
</ul>
{% endfor %}
</article>
{% endmacro %}
"""

REPORT = """\
{% extends "page.html" %}
{% import "parts.html" as parts %}

{% macro slices(rows, first) %}
<div class="scroll"><table>
<thead><tr><th scope="col">{{ first }}</th><th scope="col" class="number">questions</th>
<th scope="col" class="number">chance</th><th scope="col" class="wide">accuracy, 0 to 100 %</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.name }}</th><td class="number">{{ "{:,}".format(row.questions) }}</td>
<td class="number">{{ row.chance | percent }}</td>
<td class="wide">{{ parts.share(row.accuracy, row.chance, row.interval) }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}

{% macro diagram(calibration) %}
{# a plot of 300 x 250 units, whose lower left corner is (40, 260) #}
<svg class="diagram" viewBox="0 0 350 312" role="img" aria-label="reliability diagram; its numbers are in the table">
<rect class="back" x="40" y="10" width="300" height="250"/>
{% for bin in calibration.bins %}
{% set left, width = 40 + 300 * bin.low, 300 * (bin.high - bin.low) %}
{% if bin.questions %}
<rect class="bar" x="{{ (left + 1) | round(2) }}" width="{{ (width - 2) | round(2) }}"
 y="{{ (260 - 250 * bin.accuracy) | round(2) }}" height="{{ (250 * bin.accuracy) | round(2) }}"/>
{% endif %}
<text class="soft" text-anchor="middle" x="{{ (left + width / 2) | round(2) }}" y="290">{{ bin.questions }}</text>
{% endfor %}
<path class="dashed" d="M40 260L340 10"/>
{% for bin in calibration.bins if bin.questions %}
<circle class="dot" r="3.5" cx="{{ (40 + 300 * bin.confidence) | round(2) }}"
 cy="{{ (260 - 250 * bin.accuracy) | round(2) }}"/>
{% endfor %}
{% for share in [0, 0.2, 0.4, 0.6, 0.8, 1] %}
<text text-anchor="middle" x="{{ (40 + 300 * share) | round(2) }}" y="274">{{ share }}</text>
<text text-anchor="end" x="35" y="{{ (264 - 250 * share) | round(2) }}">{{ share }}</text>
{% endfor %}
<text class="soft" text-anchor="end" x="35" y="290">n</text>
<text text-anchor="middle" x="190" y="307">highest probability</text>
<text text-anchor="middle" transform="translate(9 135) rotate(-90)">accuracy</text>
</svg>
{% endmacro %}

{% macro quartiles(name, values) %}
<tr><th scope="row">{{ name }}</th>
{% for value in values %}
<td class="number">{{ "%+.1f" | format(value) }}</td>
{% endfor %}
</tr>
{% endmacro %}

{% block main %}
<section class="short">
<dl class="cards">
{% for figure in figures %}
<div><dt>{{ figure.name }}</dt><dd class="value">{{ figure.value | percent }}</dd>
<dd class="soft">95% interval {{ figure.interval[0] | percent }} to {{ figure.interval[1] | percent }}<br>
{{ figure.note }}</dd></div>
{% endfor %}
</dl>
<p>Questions with a known answer: {{ "{:,}".format(counts.questions) }}, of them with a known span:
{{ "{:,}".format(counts.spans) }}. The intervals are drawn by clip (bootstrap).
{% if counts.unlabelled %}
Without a known answer, and so left out: {{ "{:,}".format(counts.unlabelled) }}.
{% endif %}
{% if counts.missing %}
<b>Without a prediction, and so counted as wrong: {{ "{:,}".format(counts.missing) }}.</b>
{% endif %}
</p>
</section>

<section class="short">
<h2>Accuracy by group</h2>
<p class="soft">Dashed: chance, one over the number of choices. Line: 95% interval (Wilson's, for questions that do not
depend on each other).</p>
{{ slices(groups, "group") }}
</section>
<section class="short">
<h2>Accuracy by first word of the question</h2>
{{ slices(words, "first word") }}
</section>

<section>
<h2>Calibration</h2>
{% if calibration.questions %}
{% set excess = calibration.confidence - calibration.accuracy %}
<p>Expected calibration error <b>{{ calibration.error | percent }}</b>: the mean distance of the circles from the dashed
line, weighted by the number of questions n. On average the chosen answer has a probability of
{{ calibration.confidence | percent }}, and {{ calibration.accuracy | percent }} of them are right: the model is
{{ "%.1f" | format(100 * excess | abs) }} points too {{ "sure" if excess > 0 else "unsure" }} of itself.
{% if counts.missing %}
Questions without a prediction are left out here.
{% endif %}
</p>
{{ diagram(calibration) }}
<details><summary>The numbers</summary>
<div class="scroll"><table>
<thead><tr><th scope="col">highest probability</th><th scope="col" class="number">questions</th>
<th scope="col" class="number">mean probability</th><th scope="col" class="number">accuracy</th></tr></thead>
<tbody>
{% for bin in calibration.bins %}
<tr><th scope="row">{{ "%.2g" | format(bin.low) }} to {{ "%.2g" | format(bin.high) }}</th>
<td class="number">{{ bin.questions }}</td>
<td class="number">{{ bin.confidence | percent if bin.questions else "none" }}</td>
<td class="number">{{ bin.accuracy | percent if bin.questions else "none" }}</td></tr>
{% endfor %}
</tbody>
</table></div></details>
{% else %}
<p>No question with a known answer has a prediction, so there is nothing to compare.</p>
{% endif %}
</section>

<section>
<h2>Spans</h2>
{% if spans is none %}
<p>No question with a known answer has a known span, so this part is left out.</p>
{% else %}
<p>Of the questions with a known span, {{ spans.good | percent }} have an IoU of at least 0.5, and
{{ spans.none | percent }} no overlap at all.
{% if spans.without %}
Without a predicted span, and so with an IoU of 0 and not among the errors in seconds:
{{ "{:,}".format(spans.without) }}.
{% endif %}
</p>
<div class="scroll"><table>
<caption>Distribution of the IoU</caption>
<thead><tr><th scope="col">IoU</th><th scope="col" class="number">questions</th>
<th scope="col" class="wide">share, 0 to 100 %</th></tr></thead>
<tbody>
{% for row in spans.iou %}
<tr><th scope="row">{{ row.name }}</th><td class="number">{{ "{:,}".format(row.questions) }}</td>
<td class="wide">{{ parts.share(row.share) }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% if spans.errors %}
<div class="scroll"><table>
<caption>Predicted minus true time, in seconds: below 0 is too early</caption>
<thead><tr><th scope="col"></th><th scope="col" class="number">lower quartile</th>
<th scope="col" class="number">median</th><th scope="col" class="number">upper quartile</th></tr></thead>
<tbody>
{{ quartiles("start", spans.start) }}
{{ quartiles("end", spans.end) }}
</tbody>
</table></div>
<div class="scroll"><table>
<caption>How far off; predicted spans: {{ "{:,}".format(spans.located) }}</caption>
<thead><tr><th scope="col">seconds</th><th scope="col" class="half">start</th>
<th scope="col" class="half">end</th></tr></thead>
<tbody>
{% for row in spans.errors %}
<tr><th scope="row" style="white-space: nowrap">{{ row.name }}</th>
<td class="half">{{ parts.share(row.start) }}</td><td class="half">{{ parts.share(row.end) }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% endif %}
</section>

<section>
<h2>The worst mistakes</h2>
{% if worst %}
<p class="soft">Lowest probability of the right answer. <span class="key">T</span> marks the true span, which is
outlined in the other row too, <span class="key">P</span> the predicted one.</p>
{% for card in worst %}
{{ parts.question(card) }}
{% endfor %}
{% else %}
<p>There is none: every question that has a prediction is answered right.</p>
{% endif %}
</section>
{% if confident %}
<section>
<h2>More mistakes, the most confident first</h2>
<p class="soft">Highest probability of a wrong answer, among the questions not shown above.</p>
{% for card in confident %}
{{ parts.question(card) }}
{% endfor %}
</section>
{% endif %}
{% endblock %}
"""

COMPARISON = """\
{% extends "page.html" %}
{% import "parts.html" as parts %}
{% block main %}
<p class="soft"><span class="key">T</span> marks the true span, which is outlined in the other rows too.
{% for name in names %}
<span class="key">{{ loop.index }}</span> {{ name }}{{ "." if loop.last else "," }}
{% endfor %}
</p>
{% for card in cards %}
{{ parts.question(card) }}
{% endfor %}
{% endblock %}
"""

TEMPLATES = {
    "style.css": STYLE,
    "page.html": PAGE,
    "parts.html": PARTS,
    "report.html": REPORT,
    "comparison.html": COMPARISON,
}
