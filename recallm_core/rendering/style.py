"""The look of an answer in HTML, and the one small script of its page; both work offline."""

from __future__ import annotations

# Everything is scoped to .recallm, so that a notebook keeps its own look.
STYLE = """
.recallm{--ink:#1d2026;--soft:#5c6370;--line:#e3e5ea;--paper:#fff;--ground:#f6f7f9;--link:#2456c4;
--mark:#fff0b8;--mark2:#ffe28a;--mark3:#ffd35c;--hit:#ffc145;--hitline:#c77700;--tie:#d9a400;
--odd:#b3261e;color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans",sans-serif;-webkit-text-size-adjust:100%}
@media (prefers-color-scheme:dark){.recallm{--ink:#e6e8ec;--soft:#9aa2b1;--line:#31353d;
--paper:#1b1e23;--ground:#131518;--link:#8ab0ff;--mark:#463a10;--mark2:#5a4a12;--mark3:#6e5b16;
--hit:#8a6200;--hitline:#ffc145;--tie:#a88415;--odd:#ff8a80}}
.recallm *{box-sizing:border-box}
.recallm a{color:var(--link);text-decoration:none}
.recallm a:hover{text-decoration:underline}
.recallm a:focus-visible,.recallm summary:focus-visible{outline:2px solid var(--link);
outline-offset:2px;border-radius:3px}
.recallm h2{font-size:.78rem;font-weight:600;letter-spacing:.06em;text-transform:uppercase;
color:var(--soft);margin:0 0 .6rem}
.recallm .text,.recallm .excerpt,.recallm .quote,.recallm .thought{white-space:pre-wrap;
overflow-wrap:anywhere;unicode-bidi:plaintext;text-align:start;tab-size:4}
.recallm .text{font-size:1.06rem}
.recallm .ctl{color:var(--odd);font:.78em ui-monospace,monospace;unicode-bidi:isolate}
.recallm .none{border:1px solid var(--line);border-inline-start:4px solid var(--tie);
border-radius:6px;padding:.5rem .8rem;margin:0 0 .9rem;font-weight:600}
.recallm .s{border-bottom:1px dotted var(--tie)}
.recallm .cite{font-size:.72em;font-weight:600;vertical-align:super;line-height:0;padding:0 .12em;
unicode-bidi:isolate;scroll-margin-top:30vh;font-variant-numeric:tabular-nums}
.recallm .quotes{list-style:none;margin:0 0 1.6rem;padding:0}
.recallm .quotes li{display:grid;grid-template-columns:2.4em 1fr;padding:.55rem 0;
border-top:1px solid var(--line)}
.recallm .quotes .no{font-weight:600;font-variant-numeric:tabular-nums}
.recallm .quotes a.quote{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:4;
overflow:hidden;color:inherit;font-size:.95rem;white-space:pre-line}
.recallm .where{grid-column:2;color:var(--soft);font-size:.82rem;overflow-wrap:anywhere;
unicode-bidi:plaintext}
.recallm details{margin:0 0 1.2rem}
.recallm summary{cursor:pointer;color:var(--soft);font-size:.9rem}
.recallm .thought{color:var(--soft);font-size:.92rem;border-inline-start:2px solid var(--line);
padding-inline-start:.9rem;margin:.6rem 0 0}
.recallm .thought mark{color:var(--ink)}
.recallm mark{background:var(--mark);color:inherit;border-radius:2px;padding:.08em 0;
-webkit-box-decoration-break:clone;box-decoration-break:clone}
.recallm mark.d2{background:var(--mark2)}
.recallm mark.d3{background:var(--mark3)}
.recallm .on{background:var(--hit)!important;box-shadow:0 2px 0 var(--hitline)}
.recallm .at{scroll-margin-top:30vh}
.recallm .back::after{content:attr(data-n);font-size:.68em;font-weight:700;vertical-align:super;
line-height:0;padding:0 .15em;unicode-bidi:isolate}
.recallm .source{background:var(--paper);border:1px solid var(--line);border-radius:10px;
margin:0 0 1.2rem;overflow:clip}
.recallm .source>header{padding:.7rem 1rem .6rem;border-bottom:1px solid var(--line)}
.recallm .source h3{font-size:1rem;line-height:1.35;margin:0;overflow-wrap:anywhere;
unicode-bidi:plaintext}
.recallm .origin{margin:.1rem 0 0;font-size:.8rem;color:var(--soft);overflow-wrap:anywhere;
unicode-bidi:plaintext}
.recallm .excerpt{position:relative;padding:.7rem 1rem .7rem 4.2rem;font-size:.95rem}
.recallm .n::before{content:attr(data-n);position:absolute;left:0;width:3.4rem;text-align:right;
color:var(--soft);opacity:.75;font:.74rem ui-monospace,SFMono-Regular,Menlo,monospace;
line-height:inherit;padding-top:.2em;direction:ltr;unicode-bidi:isolate}
.recallm .gap{margin:0;padding:.25rem 1rem .25rem 4.2rem;font-size:.78rem;color:var(--soft);
background:var(--ground);border-block:1px solid var(--line)}
.recallm .gap:last-child{border-bottom:0}
.recallm .facts{color:var(--soft);font-size:.8rem;margin:0;overflow-wrap:anywhere}
.recallm .names{margin:.5rem 0 0;padding-inline-start:1.2rem;font-size:.88rem;
color:var(--soft);overflow-wrap:anywhere}
@media print{.recallm .on{background:var(--mark)!important;box-shadow:none}
.recallm .quotes a.quote{display:block;-webkit-line-clamp:none}
.recallm mark{-webkit-print-color-adjust:exact;print-color-adjust:exact}
.recallm a{color:inherit}.recallm .quotes li{break-inside:avoid}}
"""

PAGE_STYLE = """
html{color-scheme:light dark;background:#f6f7f9;scroll-behavior:smooth}
@media (prefers-color-scheme:dark){html{background:#131518}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0}
.page>header{max-width:84rem;margin:0 auto;padding:2rem 2rem 1.1rem}
.page h1{font-size:1.5rem;line-height:1.3;font-weight:650;margin:0;
overflow-wrap:anywhere;white-space:pre-line;unicode-bidi:plaintext;text-align:start}
.page main{max-width:84rem;margin:0 auto;padding:0 2rem 3rem;display:grid;gap:2.4rem;
grid-template-columns:minmax(20rem,5fr) minmax(0,7fr);align-items:start}
.page .answer{position:sticky;top:0;max-height:100vh;overflow:auto;padding:1rem .6rem 1.2rem 0}
.page .sources{padding-top:1rem;min-width:0}
.page .answer .text{margin:0 0 1.8rem}
@media (max-width:56rem){.page>header{padding:1.2rem 1rem .4rem}.page h1{font-size:1.25rem}
.page main{display:block;padding:0 1rem 2rem}
.page .answer{position:static;max-height:none;overflow:visible;padding:.8rem 0}
.recallm .excerpt{padding-left:3.1rem;padding-right:.8rem}
.recallm .gap{padding-left:3.1rem}.recallm .n::before{width:2.6rem}}
@media print{html{background:none}.page main{display:block}
.page .answer{position:static;max-height:none;overflow:visible}.recallm .source{overflow:visible}}
"""

NOTEBOOK_STYLE = """
.recallm.cell{--ink:inherit;--soft:#7d8590;--link:#4a7fe0;--odd:#e5534b;--line:rgba(127,127,127,.28);--paper:transparent;
--ground:rgba(127,127,127,.1);--mark:rgba(255,200,40,.3);--mark2:rgba(255,190,20,.42);
--mark3:rgba(255,180,0,.55);--hit:rgba(255,160,0,.75);max-width:60rem;font-size:14px;
line-height:1.55;color:inherit}
.recallm.cell .text{margin:0 0 1rem}
.recallm.cell .facts{margin-bottom:1.2rem}
"""

# Marks every stretch of the citation that the address names, or that the pointer is on. Without
# it the links still jump, and :target (see html._target_rules) marks.
SCRIPT = """
(()=>{const root=document.querySelector('.recallm');
const light=(name,on)=>{
for(const e of root.getElementsByClassName(name))e.classList.toggle('on',on)};
let last='';
const follow=()=>{if(last)light(last,false);
const m=/^#r-([qa])(\\d+)$/.exec(location.hash);
last=m?(m[1]==='q'?'q':'s')+m[2]:'';if(last)light(last,true)};
const hover=on=>event=>{const e=event.target.closest&&event.target.closest('[data-k]');
if(e&&'q'+e.dataset.k!==last)light('q'+e.dataset.k,on)};
root.addEventListener('mouseover',hover(true));
root.addEventListener('mouseout',hover(false));
addEventListener('hashchange',follow);follow()})();
"""
