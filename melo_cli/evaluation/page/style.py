"""The style of the report: light and dark, on screens and on paper, nothing loaded from elsewhere."""

STYLE = """
:root {
  --paper: #fdfdfc; --ink: #1c2025; --soft: #626b76; --rule: #e1e4e8; --tint: #f3f5f7;
  --edit: #2563c9; --rephrase: #0f8a72; --hard: #c2570c; --same-subject: #b5487f;
  --unrelated: #7a6bb5; --base: #9aa3ad;
  --good: #0f7a4d; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e7e9ec; --soft: #9aa4af; --rule: #2c3238; --tint: #1c2025;
    --edit: #6ea2f7; --rephrase: #3fc0a4; --hard: #f0954e; --same-subject: #e388b4;
    --unrelated: #a99be0; --base: #77818c;
    --good: #55c795; --bad: #f28b82;
  }
}
@media print {
  :root {
    --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --tint: #f3f3f3;
    --edit: #2563c9; --rephrase: #0f8a72; --hard: #c2570c; --same-subject: #b5487f;
    --unrelated: #7a6bb5; --base: #888;
    --good: #0f7a4d; --bad: #b3261e;
  }
}
* { box-sizing: border-box; }
html { background: var(--paper); }
body { margin: 0; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 48px 0 8px; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 28px 0 6px; }
p { margin: 8px 0; }
.facts, figcaption, .note, td small, th small { color: var(--soft); }
.facts { font-size: .9rem; margin: 0 0 20px; }
.lead { font-size: 1.08rem; max-width: 46em; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }
.tiles { margin: 28px 0 8px; }
.tile { background: var(--tint); border-radius: 10px; padding: 14px 16px; }
.tile { border-left: 4px solid var(--edit); }
.tile.rephrase { border-color: var(--rephrase); }
.tile.hard { border-color: var(--hard); }
.tile.same_subject { border-color: var(--same-subject); }
.tile.unrelated { border-color: var(--unrelated); }
.tile b { display: block; font-size: 1.9rem; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-weight: 600; font-size: .95rem; }
.tile small { color: var(--soft); display: block; line-height: 1.4; margin-top: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .85rem; border-bottom-width: 2px; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td small, th small { display: block; font-weight: 400; font-size: .82rem; line-height: 1.35; }
tr.sub th, tr.sub td { padding-top: 0; color: var(--soft); font-weight: 400; }
tr.sub th { padding-left: 26px; }
tr.main:has(+ tr.sub) > * { border-bottom: 0; padding-bottom: 2px; }
tbody th { min-width: 220px; }
td.good { color: var(--good); }
td.bad { color: var(--bad); }
table.texts td { overflow-wrap: break-word; min-width: 80px; }
table.texts td:first-child { min-width: 220px; width: 32%; }
table.texts td:last-child { min-width: 150px; width: 24%; }
table.texts i { color: var(--soft); }
figure { margin: 16px 0 0; }
figcaption { font-size: .9rem; max-width: 52em; }
svg { width: 100%; min-width: 560px; height: auto; display: block; }
svg text { font: 12px system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--soft); }
svg text.name { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 3; }
svg .ceiling { stroke: var(--soft); stroke-dasharray: 2 4; stroke-width: 1.5; }
svg .band { fill: var(--edit); opacity: .15; }
svg .line { stroke-width: 2.2; stroke-linejoin: round; }
svg .line.edit { stroke: var(--edit); }
svg .line.base { stroke: var(--base); stroke-width: 1.6; stroke-dasharray: 6 4; }
svg .line.hard { stroke: var(--hard); }
svg .line.same_subject { stroke: var(--same-subject); }
svg .line.unrelated { stroke: var(--unrelated); }
svg .dot { stroke: var(--paper); stroke-width: 1.5; }
svg .edit { fill: var(--edit); }
svg .rephrase { fill: var(--rephrase); }
svg .hard { fill: var(--hard); }
svg .same_subject { fill: var(--same-subject); }
svg .unrelated { fill: var(--unrelated); }
svg polyline.line { fill: none; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--rule); }
footer { font-size: .88rem; color: var(--soft); }
@media print {
  body { font-size: 10pt; }
  main { padding: 0; max-width: none; }
  table { font-size: 8.5pt; }
  th, td { padding: 4px 6px; }
  tbody th, table.texts td, table.texts td:first-child, table.texts td:last-child { min-width: 0; }
  td small, th small, td.n small { font-size: 7pt; }
  .scroll { overflow: visible; }
  svg { min-width: 0; }
  figure, .tile, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
