"""Define the style of the report's page: light and dark, wide and narrow, and on paper. Pure."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --soft: #5c6670; --line: #d9dee3; --box: #f5f7f9;
  --step: #1769c2; --index: #7a3fc0; --others: #a86400; --rest: #7d8790; --bad: #c4262e; --good: #1a7f3c;
  --step-1: #00838f; --step-2: #4a5fd0; --step-3: #2e8b57; --step-4: #5b7a99; --step-5: #0f9bd7; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --soft: #9aa5b0; --line: #343b42; --box: #1d2226;
    --step: #5aa7f2; --index: #b58af0; --others: #e0a040; --rest: #8a949e; --bad: #ff7b7f; --good: #58c27d;
    --step-1: #3fc1cc; --step-2: #8f9dff; --step-3: #6fd09a; --step-4: #a3bdd6; --step-5: #6cc7f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
.meta, .note { color: var(--soft); margin: 0; }
.badge { border: 1px solid; border-radius: 1rem; padding: .05rem .6rem; font-size: .85rem; font-weight: 600;
  vertical-align: .15em; color: var(--good); white-space: nowrap; }
.badge.bad { color: var(--bad); }
.tiles { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0 0; padding: 0; }
.tiles li { background: var(--box); border-radius: .4rem; padding: .4rem .9rem; }
.tiles b { font-size: 1.3rem; margin-right: .2rem; }
.tiles .bad { color: var(--bad); }
.told { font-size: 1.05rem; margin: 1rem 0 0; overflow-wrap: anywhere; }
.note { overflow-wrap: anywhere; }
.failure { border-left: 4px solid var(--bad); background: var(--box); padding: .6rem .9rem; margin: .6rem 0; }
.failure b { overflow-wrap: anywhere; }
.failure pre { margin: .4rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .87rem/1.5 ui-monospace, monospace; }
.strip { display: flex; height: 1.7rem; border-radius: .25rem; overflow: hidden; gap: 1px; }
.strip span { min-width: 2px; }
.key { list-style: none; margin: .5rem 0 0; padding: 0; }
.key li { display: flex; gap: .5rem; padding: .05rem 0; }
.key i { flex: none; width: .8rem; height: .8rem; margin-top: .33rem; border-radius: .15rem; }
.key span { flex: 1; overflow-wrap: anywhere; }
.key b { font-weight: 500; font-variant-numeric: tabular-nums; white-space: nowrap; }
.step { background: var(--step); } .index { background: var(--index); } .others { background: var(--others); }
.rest { background: var(--rest); }
.step-1 { background: var(--step-1); } .step-2 { background: var(--step-2); } .step-3 { background: var(--step-3); }
.step-4 { background: var(--step-4); } .step-5 { background: var(--step-5); }
.rows { border-top: 1px solid var(--line); }
.row { display: grid; grid-template-columns: minmax(9rem, 20rem) 1fr 6.5rem; gap: .75rem; align-items: center;
  border-bottom: 1px solid var(--line); padding: .2rem 0; }
.name { overflow-wrap: anywhere; line-height: 1.3; }
.held .name { font-weight: 600; }
.name small { display: block; color: var(--soft); font-weight: 400; }
.failed .name small { color: var(--bad); }
.track { position: relative; height: 1.2rem; }
.tick { position: absolute; top: -.35rem; bottom: -.35rem; border-left: 1px dashed var(--line); }
.bar { position: absolute; top: 0; bottom: 0; min-width: 3px; border-radius: .2rem; opacity: .35; }
.bar.solid { opacity: 1; }
.failed .bar { outline: 2px solid var(--bad); outline-offset: 1px; }
.open .bar { border-radius: .2rem 0 0 .2rem; }
.took { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.axis { color: var(--soft); font-size: .8rem; border: 0; }
.axis .track span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis .track span:first-child { transform: none; } .axis .track span:last-child { transform: translateX(-100%); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 500; }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bad, td.good { white-space: nowrap; }
@media (max-width: 44rem) {
  body { padding: 1rem; }
  .row { grid-template-columns: 1fr auto; gap: 0 .5rem; padding: .4rem 0; }
  .track { grid-column: 1 / -1; grid-row: 2; height: .8rem; margin-top: .2rem; }
  .tick { top: 0; bottom: 0; }
  .axis .track { height: 1.2rem; }
  table, tbody, tr, td { display: block; }
  tr:first-child, td:empty { display: none; }
  tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  td { display: grid; grid-template-columns: 5rem 1fr; border: 0; padding: .05rem 0; overflow-wrap: anywhere; }
  td::before { content: attr(data-head); color: var(--soft); font-weight: 400; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --box: #f2f2f2; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  html { font-size: 11px; }
  body { max-width: none; padding: 0; font-size: 1rem; }
  h2 { break-after: avoid; }
  .row, tr, .failure, .key li { break-inside: avoid; }
}
""".strip()
