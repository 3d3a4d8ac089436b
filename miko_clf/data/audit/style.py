"""How the page of an audit looks, by day, by night and on a phone."""

STYLE = """
:root{--ground:#fbfaf8;--card:#fff;--ink:#1d2126;--soft:#5d666f;--line:#e2dfd9;--bad:#a8321f;
--good:#23694a;--bar:#4a6fa5}
@media(prefers-color-scheme:dark){:root{--ground:#15181b;--card:#1c2024;--ink:#e6e4df;
--soft:#9aa3ab;--line:#31373d;--bad:#f0907e;--good:#7fcaa3;--bar:#7ea3d8}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:68rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0 .8rem;max-width:44rem}
.lead{color:var(--soft);margin:.2rem 0 1.4rem}
ul{margin:.3rem 0;padding-left:1.2rem}
li{margin:.25rem 0;overflow-wrap:anywhere}
small{color:var(--soft);font-size:.85em;white-space:nowrap}
.verdict{background:var(--card);border:1px solid var(--line);border-left:.3rem solid;
border-radius:.4rem;padding:.9rem 1.1rem}
.verdict h2{margin:0}
.verdict.bad{border-left-color:var(--bad)}.verdict.bad h2{color:var(--bad)}
.verdict.good{border-left-color:var(--good)}.verdict.good h2{color:var(--good)}
.wide{overflow-x:auto;margin:.6rem 0 1rem;background:var(--card);border:1px solid var(--line);
border-radius:.4rem}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .8rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:600}
thead th{white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
td b{color:var(--bad)}
.bar{display:inline-block;width:5rem;height:.5rem;border-radius:.25rem;background:var(--line);
overflow:hidden;vertical-align:middle}
.bar span{display:block;height:100%;background:var(--bar)}
details{border:1px solid var(--line);border-radius:.4rem;background:var(--card);margin:.4rem 0}
summary{cursor:pointer;padding:.5rem .8rem}
summary::first-letter{text-transform:uppercase}
details>p{padding:0 .8rem}
.groups{list-style:none;margin:0;padding:0 .8rem .6rem;font-size:.9rem}
.groups li{padding:.35rem 0;border-top:1px solid var(--line)}
.post{display:inline-block;margin-right:1rem}
.post b{color:var(--soft);font-weight:600}
.post i{font-style:normal;color:var(--soft)}
@media(max-width:40rem){main{padding:1.25rem .9rem 3rem}th,td{padding:.35rem .5rem}
table{font-size:.85rem}td:first-child{white-space:normal}.bar{width:2.6rem}
.wide small{display:block}
.post{display:block;margin:0}}
"""
