/** The style sheet of all pages: calm, readable, light and dark, from a narrow phone to a wide screen. */
export const styleSheet = `
:root {
  color-scheme: light dark;
  --ground: #f1f4f6;
  --paper: #ffffff;
  --ink: #16212c;
  --soft: #55636f;
  --line: #d5dce2;
  --fieldline: #84919c;
  --accent: #0b5c7d;
  --accent-ink: #ffffff;
  --accent-over: #084861;
  --tint: #eef6f9;
  --calm: #44525e;
  --calm-ink: #ffffff;
  --calm-over: #2e3a45;
  --warn: #fdf3dc;
  --warn-line: #c98a06;
  --warn-ink: #5b3f00;
  --bad: #fdecea;
  --bad-line: #c0392b;
  --bad-ink: #7d1d13;
  --good: #e8f5ec;
  --good-line: #2c8a4b;
  --good-ink: #17512b;
  --shadow: 0 1px 2px rgb(22 33 44 / 6%), 0 12px 32px rgb(22 33 44 / 8%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f151b;
    --paper: #18212a;
    --ink: #e8edf1;
    --soft: #a3b1bc;
    --line: #2e3a45;
    --fieldline: #6d7c88;
    --accent: #7cc4e2;
    --accent-ink: #08222e;
    --accent-over: #a3d8ee;
    --tint: #1c2a34;
    --calm: #aab7c1;
    --calm-ink: #131b22;
    --calm-over: #cad4db;
    --warn: #33290f;
    --warn-line: #d9a32b;
    --warn-ink: #f4dfab;
    --bad: #391c1a;
    --bad-line: #e57368;
    --bad-ink: #f8cfca;
    --good: #15301f;
    --good-line: #58b878;
    --good-ink: #c4ebd1;
    --shadow: 0 1px 2px rgb(0 0 0 / 40%), 0 12px 32px rgb(0 0 0 / 30%);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0;
  background: var(--ground);
  color: var(--ink);
  font: 1rem/1.5 -apple-system, "Segoe UI", Ubuntu, Cantarell, "Noto Sans", Roboto, "Liberation Sans", "Helvetica Neue", sans-serif;
}
.frame { width: 100%; max-width: 33rem; margin: 0 auto; padding: clamp(1.25rem, 6vh, 4rem) 1rem 3rem; }
.frame.wide { max-width: 44rem; }
.brand { display: flex; align-items: center; gap: .625rem; margin: 0 .25rem 1.125rem; font-weight: 650; letter-spacing: .005em; color: var(--ink); }
.mark { display: block; width: 2rem; height: 2rem; border-radius: 9px; color: var(--accent-ink); background: var(--accent); }
main { background: var(--paper); border: 1px solid var(--line); border-radius: 16px; box-shadow: var(--shadow); padding: clamp(1.25rem, 5vw, 2.5rem); }
h1 { margin: 0 0 .5rem; font-size: 1.625rem; line-height: 1.25; letter-spacing: -.01em; text-wrap: balance; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .75rem; font-size: 1.0625rem; line-height: 1.3; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; text-wrap: pretty; }
.lead { color: var(--soft); margin-bottom: 1.5rem; }
.quiet { color: var(--soft); font-weight: 400; }
.small { font-size: .875rem; }
.after { margin: 1rem 0 0; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
a { color: var(--accent); text-underline-offset: .15em; }
a:hover { color: var(--accent-over); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }

.field { margin: 0 0 1.125rem; }
.field label { display: block; margin-bottom: .375rem; font-weight: 600; }
.field input {
  width: 100%; padding: .6875rem .75rem; font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--fieldline); border-radius: 8px;
}
.field input:focus-visible { outline-offset: 0; border-color: var(--accent); }
.hint { margin: .375rem 0 0; font-size: .875rem; color: var(--soft); }

button, .button {
  font: inherit; font-weight: 600; min-height: 2.875rem; padding: .625rem 1.25rem; border-radius: 8px; cursor: pointer;
  border: 1px solid var(--accent); background: var(--accent); color: var(--accent-ink);
}
.button { display: inline-block; text-align: center; text-decoration: none; overflow-wrap: anywhere; }
button:hover, .button:hover { background: var(--accent-over); border-color: var(--accent-over); }
.button:hover { color: var(--accent-ink); }
button.calm { background: var(--calm); border-color: var(--calm); color: var(--calm-ink); }
button.calm:hover { background: var(--calm-over); border-color: var(--calm-over); }
button.plain { background: transparent; color: var(--ink); border-color: var(--fieldline); }
button.plain:hover { background: var(--tint); border-color: var(--ink); }
button.link { min-height: 0; padding: 0; border: 0; border-radius: 3px; background: none; color: var(--accent); font-weight: 500; text-decoration: underline; text-underline-offset: .15em; }
button.link:hover { background: none; color: var(--accent-over); }
button.full, .button.full { width: 100%; }
.choice { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; margin-top: 1.5rem; }

.notice { border: 1px solid var(--line); border-left: 4px solid var(--soft); border-radius: 8px; padding: .75rem 1rem; margin: 0 0 1.25rem; }
.notice p { margin: 0; }
.notice p + p { margin-top: .375rem; }
.notice ul { margin: .375rem 0 0; padding-left: 1.125rem; }
.notice li + li { margin-top: .25rem; }
.notice strong { font-weight: 650; }
.notice.warn { background: var(--warn); border-color: var(--warn-line); color: var(--warn-ink); }
.notice.bad { background: var(--bad); border-color: var(--bad-line); color: var(--bad-ink); }
.notice.good { background: var(--good); border-color: var(--good-line); color: var(--good-ink); }

dl.facts { margin: 0 0 1.25rem; border-top: 1px solid var(--line); }
dl.facts > div { display: grid; grid-template-columns: minmax(auto, 7.5rem) minmax(0, 1fr); gap: .125rem 1rem; padding: .6875rem 0; border-bottom: 1px solid var(--line); }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
dl.facts strong { font-weight: 650; }
dl.facts form { display: inline; }
dl.facts .also { display: block; font-size: .875rem; color: var(--soft); }
dl.facts .tag { margin-top: .1875rem; }
.tag { display: inline-block; padding: .0625rem .5rem; border-radius: .75rem; border: 1px solid var(--line); font-size: .8125rem; line-height: 1.4; color: var(--soft); overflow-wrap: anywhere; }
.tag.good { border-color: var(--good-line); color: var(--good-ink); background: var(--good); }
.tag.warn { border-color: var(--warn-line); color: var(--warn-ink); background: var(--warn); }

fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
legend { padding: 0; margin-bottom: .5rem; font-weight: 650; }
.scope { display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; padding: .75rem .875rem; border: 1px solid var(--line); border-radius: 10px; cursor: pointer; }
.scope + .scope { margin-top: .5rem; }
.scope:has(:checked) { background: var(--tint); border-color: var(--accent); }
.scope:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 2px; }
.scope input { width: 1.1875rem; height: 1.1875rem; margin: .1875rem 0 0; accent-color: var(--accent); }
.scope input:focus-visible { outline: none; }
.scope.one { display: block; cursor: auto; background: var(--tint); border-color: var(--accent); }
.scope b { font-weight: 600; }
.scope span span { display: block; font-size: .9375rem; color: var(--soft); }
.scope span span.tag { display: inline-block; font-size: .75rem; }
main > :last-child { margin-bottom: 0; }
.unseen { position: absolute; width: 1px; height: 1px; margin: -1px; padding: 0; border: 0; overflow: hidden; clip-path: inset(50%); }

.card { border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.125rem; margin: 0 0 .75rem; }
.card header { display: flex; flex-wrap: wrap; gap: .25rem .75rem; justify-content: space-between; align-items: baseline; }
.card h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.card p { margin: .25rem 0 0; font-size: .9375rem; color: var(--soft); }
.card form { margin-top: .75rem; }
.card button { min-height: 2.375rem; padding: .375rem .875rem; }
@media (min-width: 34rem) {
  .card { display: grid; grid-template-columns: minmax(0, 1fr) auto; column-gap: 1rem; }
  .card > * { grid-column: 1; }
  .card > header { grid-column: 1 / -1; }
  .card > form { grid-column: 2; grid-row: 2 / span 3; align-self: center; margin: 0; }
}
.row { display: flex; flex-wrap: wrap; gap: .5rem 1rem; justify-content: space-between; align-items: center; }
.row h1 { margin: 0; }
details { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
summary { cursor: pointer; font-weight: 600; padding: .25rem 0; border-radius: 4px; }
details[open] summary { margin-bottom: 1rem; }
details.more { border: 0; margin-top: .75rem; padding: 0; font-size: .9375rem; }
details.more summary { color: var(--accent); font-weight: 500; }
details.more summary:hover { color: var(--accent-over); }
details.more[open] { padding-bottom: .5rem; border-bottom: 1px solid var(--line); }
details.more[open] summary { margin-bottom: .375rem; }
details.more h2 { margin: 1rem 0 .375rem; font-size: .9375rem; }
details.more p { margin-bottom: .5rem; }
.tools { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .25rem 1rem; margin: 0 0 .5rem; padding: 0; list-style: none; }
.tools li { display: flex; gap: .5rem; justify-content: space-between; align-items: baseline; overflow-wrap: anywhere; }

.meet { display: flex; align-items: center; gap: .75rem; margin: 0 0 1.5rem; }
.meet .mark, .meet .guest { flex: none; width: 3.25rem; height: 3.25rem; border-radius: 14px; }
.guest { display: grid; place-items: center; font-size: 1.375rem; font-weight: 650; color: var(--ink); background: var(--ground); border: 2px dashed var(--fieldline); }
.guest.proved { border-style: solid; border-color: var(--line); }
.meet .way { flex: 1; max-width: 5rem; border-top: 3px dotted var(--fieldline); }

@media (max-width: 26rem) {
  dl.facts > div { grid-template-columns: minmax(0, 1fr); }
  h1 { font-size: 1.3125rem; }
}
@media (forced-colors: active) {
  .scope:has(:checked) { border-width: 2px; }
  .mark { forced-color-adjust: none; }
}
@media print { body { background: none; } main { box-shadow: none; } }
`.trimStart();
