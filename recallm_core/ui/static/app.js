"use strict";
// Every text goes into the page as text: no string is ever parsed as HTML.
(() => {
  const at = (id) => document.getElementById(id);
  const key = new URLSearchParams(location.hash.slice(1)).get("key")
    || sessionStorage.getItem("recallm-key") || "";
  if (key) {
    sessionStorage.setItem("recallm-key", key);
    history.replaceState(null, "", location.pathname);
  }
  let messages = [];
  let asking = null;
  let opener = null;
  let shown = null;
  let followed = null;

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const call = async (path, body, signal) => {
    const response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: {"Authorization": "Bearer " + key, "Content-Type": "application/json"},
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
    if (!response.ok) {
      let text = "The server answered " + response.status + ".";
      try { text = (await response.json()).error || text; } catch { /* no JSON: the number says it */ }
      throw new Error(text);
    }
    return response;
  };

  // ---- documents and model

  const list = (details, title, names) => {
    details.hidden = names.length === 0;
    details.querySelector("summary").textContent = title;
    details.querySelector("ul").replaceChildren(...names.map((n) => element("li", {textContent: n})));
  };

  const showState = (state) => {
    const count = state.count + (state.count === 1 ? " document" : " documents");
    at("open-summary").textContent = state.count
      ? `${count} from ${state.paths.join(", ")} · ${state.model}`
      : "No documents are open.";
    at("model").value = state.model;
    if (state.paths.length) at("paths").value = state.paths.join("\n");
    list(at("documents"), count, state.documents);
    list(at("skipped"), "Left out", state.skipped);
    if (!state.count) setUp(true);
  };

  const setUp = (open) => {
    at("setup").hidden = !open;
    at("setup-toggle").setAttribute("aria-expanded", String(open));
  };

  const change = async (form, saying, path, body) => {
    const button = form.querySelector("button");
    button.disabled = true;
    at("setup-status").className = "";
    at("setup-status").textContent = saying;
    try {
      showState(await (await call(path, body)).json());
      at("setup-status").textContent = "Ready.";
      at("question").focus();
    } catch (error) {
      at("setup-status").className = "error";
      at("setup-status").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  };

  at("setup-toggle").addEventListener("click", () => setUp(at("setup").hidden));
  at("open-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const paths = at("paths").value.split("\n").filter((path) => path.trim());
    change(event.target, "Reading the documents …", "/api/open", {paths});
  });
  at("model-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change(event.target, "Loading the model …", "/api/model", {model: at("model").value});
  });

  // ---- asking

  const read = async function* (response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      waiting += value;
      const parts = waiting.split("\n\n");
      waiting = parts.pop();
      for (const part of parts) yield JSON.parse(part.slice("data: ".length));
    }
  };

  const ask = async (question) => {
    const live = element("div", {className: "live"});
    const turn = element("li", {className: "turn"}, element("h2", {textContent: question}), live);
    at("turns").append(turn);
    messages.push({role: "user", content: question});
    asking = new AbortController();
    followed = null;
    follow(turn);
    busy(true);
    let last = null;
    const grow = (name, className, text) => {
      if (!last || last.className !== className) {
        last = element(name, {className});
        live.append(last);
      }
      last.append(text);
    };
    try {
      const response = await call("/api/ask", {messages}, asking.signal);
      let ended = false;
      for await (const event of read(response)) {
        if (event.type === "status") say(event.text + " …");
        else if (event.type === "reasoning") grow("div", "thought", event.text);
        else if (event.type === "answer") grow("div", "words", event.text);
        else if (event.type === "quote-start") { last = element("q"); live.append(last); }
        else if (event.type === "quote") last.append(event.text);
        else if (event.type === "quote-end") { if (!event.kept) last.remove(); last = null; }
        else if (event.type === "error") throw new Error(event.text);
        else if (event.type === "finished") { ended = true; finish(turn, live, event); }
        if (event.type !== "status" && !ended) say("Answering …");
        follow(turn);
      }
      if (!ended) throw new Error("The connection ended before the answer did.");
      say("");
    } catch (error) {
      messages.pop();
      const text = error.name === "AbortError" ? "Stopped." : error.message;
      turn.append(element("p", {className: "error", textContent: text}));
      say(text);
      follow(turn);
    } finally {
      asking = null;
      busy(false);
      at("question").focus();
    }
  };

  // Keeps what is written above the question's box and its heading in view, until the reader scrolls.
  const follow = (turn) => {
    if (followed !== null && Math.abs(window.scrollY - followed) > 2) return;
    const {top, bottom} = turn.getBoundingClientRect();
    const hidden = bottom + 12 - at("ask").getBoundingClientRect().top;
    const by = Math.min(hidden, top - 12);
    if (by > 0) window.scrollBy(0, by);
    followed = window.scrollY;
  };

  const say = (text) => { at("status").textContent = text; };
  const busy = (on) => { at("send").disabled = on; at("stop").hidden = !on; at("new").disabled = on; };

  const finish = (turn, live, answer) => {
    messages.push({role: "assistant", content: answer.text});
    const thought = [...live.children].filter((e) => e.className === "thought");
    const quoted = element("div", {className: "words"});
    for (const [text, closes] of answer.pieces) {
      quoted.append(text);
      for (const number of closes) quoted.append(cite(answer.citations[number - 1]));
    }
    live.remove();
    if (answer.abstained) turn.append(element("p", {className: "none", textContent: answer.notice}));
    turn.append(quoted);
    const shownQuotes = answer.citations.length ? answer.citations : answer.nearest;
    if (!answer.citations.length && answer.nearest.length)
      turn.append(element("p", {textContent: answer.nearest_title}));
    if (shownQuotes.length)
      turn.append(element("ol", {className: "quotes"}, ...shownQuotes.map(quote)));
    if (thought.length)
      turn.append(element("details", {}, element("summary", {textContent: "Reasoning"}), ...thought));
    turn.append(element("p", {className: "facts", textContent: facts(answer)}));
    turn.append(copyButton(answer));
    say(answer.abstained ? answer.notice : `Answered, with ${answer.citations.length} quotes.`);
  };

  const facts = (answer) => [answer.model,
    `${answer.tokens[0]} tokens read, ${answer.tokens[1]} written`,
    answer.cut_off ? "cut off by the token limit" : ""].filter(Boolean).join(" · ");

  const cite = (citation) => {
    const button = element("button", {type: "button", className: "cite",
      textContent: `[${citation.number}]`, title: citation.text.slice(0, 300)});
    button.setAttribute("aria-label", `Quote ${citation.number}, ${citation.place}: show its source`);
    button.addEventListener("click", () => showSource(citation, button));
    return button;
  };

  const quote = (citation) => {
    const where = [`[${citation.number}] ${citation.place}`, citation.grade,
      citation.elsewhere.length ? "the same words also stand in " + citation.elsewhere.join(", ") : ""];
    const button = element("button", {type: "button"}, element("q", {textContent: citation.text}),
      element("span", {className: "where", textContent: where.filter(Boolean).join("; ")}));
    button.addEventListener("click", () => showSource(citation, button));
    return element("li", {}, button);
  };

  const copyButton = (answer) => {
    const button = element("button", {type: "button", textContent: "Copy with citations"});
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(answer.markdown);
        say("Copied.");
      } catch {
        say("The browser doesn't let this page copy.");
      }
    });
    return element("div", {className: "buttons"}, button);
  };

  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = at("question").value.trim();
    if (!question || asking) return;
    at("question").value = "";
    ask(question);
  });
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at("ask").requestSubmit();
    }
  });
  at("stop").addEventListener("click", () => asking && asking.abort());
  at("new").addEventListener("click", () => {
    messages = [];
    at("turns").replaceChildren();
    closeSource();
    at("question").focus();
  });

  // ---- sources

  const showSource = async (citation, from) => {
    opener = from;
    shown = citation;
    at("source").hidden = false;
    document.querySelector("main").classList.add("with-source");
    at("source-name").textContent = citation.name;
    at("source-place").textContent = citation.place;
    at("source-status").textContent = "Opening …";
    at("source-link").hidden = !/^https?:/.test(citation.url || "");
    if (!at("source-link").hidden) at("source-link").href = citation.url;
    at("source-text").replaceChildren();
    at("source-page").replaceChildren();
    at("as-page").hidden = at("as-text").hidden = true;
    at("source").focus();
    const place = {document_id: citation.document_id, start: citation.start, end: citation.end};
    try {
      const view = await (await call("/api/source", place)).json();
      if (shown !== citation) return;
      showText(view);
      at("source-status").textContent = "";
      if (view.pdf) await showPage(citation, place);
    } catch (error) {
      if (shown === citation) at("source-status").textContent = error.message;
    }
  };

  const gap = (count) => count ? [element("p", {className: "where",
    textContent: `${count.toLocaleString("en")} characters not shown`})] : [];

  const showText = (view) => {
    const pieces = view.pieces.map(([text, marked]) => marked ? element("mark", {textContent: text}) : text);
    at("source-text").hidden = false;
    at("source-page").hidden = true;
    at("source-text").replaceChildren(...gap(view.left_out[0]), ...pieces, ...gap(view.left_out[1]));
    const mark = at("source-text").querySelector("mark");
    if (mark) mark.scrollIntoView({block: "center"});
  };

  const showPage = async (citation, place) => {
    const response = await call("/api/page", place);
    const about = JSON.parse(response.headers.get("X-Page"));
    const picture = element("img", {alt: `Page ${about.page} of ${about.pages}`,
      src: URL.createObjectURL(await response.blob())});
    if (shown !== citation) return;
    await picture.decode();
    URL.revokeObjectURL(picture.src);
    const boxes = about.boxes.map(([left, top, width, height]) => {
      const box = element("div", {className: "box"});
      for (const [name, part] of Object.entries({left, top, width, height}))
        box.style[name] = 100 * part + "%";
      return box;
    });
    at("source-page").replaceChildren(picture, ...boxes);
    choose(true);
    if (boxes.length) boxes[0].scrollIntoView({block: "center"});
  };

  const choose = (page) => {
    at("source-page").hidden = !page;
    at("source-text").hidden = page;
    at("as-page").hidden = page;
    at("as-text").hidden = !page;
    const mark = page ? at("source-page").querySelector(".box") : at("source-text").querySelector("mark");
    if (mark) mark.scrollIntoView({block: "center"});
  };

  const closeSource = () => {
    shown = null;
    at("source").hidden = true;
    document.querySelector("main").classList.remove("with-source");
    if (opener && opener.isConnected) opener.focus();
    opener = null;
  };

  at("as-page").addEventListener("click", () => choose(true));
  at("as-text").addEventListener("click", () => choose(false));
  at("source-close").addEventListener("click", closeSource);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!at("source").hidden) closeSource();
    else if (asking) asking.abort();
  });

  call("/api/state").then((r) => r.json()).then(showState).catch((error) => say(error.message));
})();
