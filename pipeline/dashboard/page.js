"use strict";
// Adds up what is chosen, draws the charts, and keeps the tables behind them in step. Text from data goes only into text
// nodes and into the charts' own data; amounts are whole millionths, so that sums are exact.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const DAY = 86_400_000;
  const MICRO = 1_000_000;
  const Z = 1.959963984540054;
  const FEWEST_SLOTS = 10;
  const ORDER = ["day", "week", "month"];
  const times = facts.times.map((day) => Date.parse(`${day}T00:00:00Z`));
  const views = {};
  const state = { kinds: new Set(facts.kinds.keys()), from: null, to: null, grain: facts.usualGrain, colour: "kind", unit: "credits" };

  // Numbers and days as text

  const whole = (number) => number.toLocaleString("en-US");
  const exact = (amount) => {
    const [units, parts] = [Math.trunc(amount / MICRO), Math.abs(amount % MICRO)];
    const text = parts ? `.${String(parts).padStart(6, "0").replace(/0+$/, "")}` : "";
    return `${amount < 0 && !units ? "-" : ""}${whole(units)}${text}`;
  };
  const money = (amount) => (amount / MICRO).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const amountText = (amount) => (state.unit === "usd" ? `${money(amount)} USD` : exact(amount));
  /** As Python rounds it: what lies exactly between two goes to the even one, and only n.25 and n.75 lie so. */
  const percent = (share) => `${(share * 100 - ((share * 400) % 4 === 1 ? 0.05 : 0)).toFixed(1)} %`;
  const isoDay = (time) => new Date(time).toISOString().slice(0, 10);
  const counted = (number, what) => `${whole(number)} ${what}${number === 1 ? "" : "s"}`;

  // Time

  function slotOf(time, grain) {
    if (grain === "day") return time;
    const day = new Date(time);
    if (grain === "week") return time - ((day.getUTCDay() + 6) % 7) * DAY;
    return Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), 1);
  }
  function slotEnd(slot, grain) {
    if (grain === "month") return Date.UTC(new Date(slot).getUTCFullYear(), new Date(slot).getUTCMonth() + 1, 1);
    return slot + (grain === "week" ? 7 : 1) * DAY;
  }
  function slotName(slot, grain) {
    if (grain === "month") return isoDay(slot).slice(0, 7);
    return grain === "week" ? `week from ${isoDay(slot)}` : isoDay(slot);
  }
  /** A period ends and begins where the counts do: whole days, weeks or months. */
  function setPeriod(first, last) {
    state.from = first === null ? null : slotOf(first, facts.grain);
    state.to = last === null ? null : slotEnd(slotOf(last, facts.grain), facts.grain);
  }
  const hasPeriod = () => state.from !== null || state.to !== null;
  function isChosen(place, kind) {
    if (!state.kinds.has(kind)) return false;
    if (place < 0) return !hasPeriod();
    return (state.from === null || times[place] >= state.from) && (state.to === null || times[place] < state.to);
  }
  /** The slots from the first to the last time in the period, those without anything too. */
  function chosenSlots() {
    const within = times.filter((time) => (state.from === null || time >= state.from) && (state.to === null || time < state.to));
    const slots = [];
    if (!within.length) return slots;
    const last = slotOf(within.at(-1), state.grain);
    for (let slot = slotOf(within[0], state.grain); slot <= last; slot = slotEnd(slot, state.grain)) slots.push(slot);
    return slots;
  }

  // Adding up

  /** A map from slot (null: no known day) to sums, an array as long as `width`, over the chosen rows of columns. */
  function sumBySlot(columns, width, add) {
    const sums = new Map();
    columns.t.forEach((place, row) => {
      if (!isChosen(place, columns.k[row])) return;
      const slot = place < 0 ? null : slotOf(times[place], state.grain);
      if (!sums.has(slot)) sums.set(slot, new Array(width).fill(0));
      add(sums.get(slot), row);
    });
    return sums;
  }
  const total = (numbers) => numbers.reduce((sum, each) => sum + each, 0);
  const bySlot = (sums) => [...sums.keys()].sort((a, b) => (a === null) - (b === null) || a - b);

  function creditSums() {
    const names = state.colour === "kind" ? facts.kinds : facts.products;
    const [series, amounts] = [state.colour === "kind" ? "k" : "p", state.unit === "usd" ? "u" : "c"];
    const columns = facts.credits;
    const sums = sumBySlot(columns, names.length, (at, row) => { at[columns[series][row]] += columns[amounts][row]; });
    const unknown = sumBySlot(facts.unknown, 1, (at, row) => { at[0] += facts.unknown.n[row]; });
    return { names, sums, unknown };
  }
  function wilson(failed, ended) {
    const rate = failed / ended;
    const middle = (rate + (Z * Z) / (2 * ended)) / (1 + (Z * Z) / ended);
    const margin = (Z * Math.sqrt((rate * (1 - rate)) / ended + (Z * Z) / (4 * ended * ended))) / (1 + (Z * Z) / ended);
    return { rate, low: Math.max(0, middle - margin), high: Math.min(1, middle + margin) };
  }

  // Colours, from the style sheet

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const seriesColour = (number) => variable(number >= 0 && number < 8 ? `series-${number + 1}` : "series-other");
  const kindColour = (kind) => seriesColour(facts.kindColours[kind] ?? -1);
  const productColour = (product) => seriesColour(product === facts.products.length - 1 && product > 6 ? -1 : product);
  const colourOf = (number) => (state.colour === "kind" ? kindColour(number) : productColour(number));

  // Rows for the charts that are filtered

  function creditRows() {
    const { names, sums, unknown } = creditSums();
    const [bars, slots] = [[], []];
    for (const slot of chosenSlots()) {
      const [t, t2] = [slot, slotEnd(slot, state.grain)];
      const [parts, tip] = [sums.get(slot) ?? [], []];
      let y0 = 0;
      parts.forEach((amount, number) => {
        if (!amount) return;
        const y1 = y0 + amount / MICRO;
        bars.push({ t, t2, y0, y1, colour: colourOf(number) });
        tip.push([names[number], amountText(amount), colourOf(number)]);
        y0 = y1;
      });
      tip.reverse();
      tip.push(["total", amountText(total(parts))]);
      if (unknown.has(slot)) tip.push(["unknown credits", counted(unknown.get(slot)[0], "run")]);
      slots.push({ t, t2, head: slotName(slot, state.grain), tip });
    }
    return { bars, slots };
  }
  function rateRows() {
    const sums = endedSums();
    if (![...sums.keys()].some((slot) => slot !== null)) return { slots: [] };
    const slots = chosenSlots().map((t) => {
      const t2 = slotEnd(t, state.grain);
      const [failed, ended] = sums.get(t) ?? [0, 0];
      const row = { t, t2, mid: (t + t2) / 2, rate: null, low: null, high: null, head: slotName(t, state.grain) };
      if (!ended) return { ...row, tip: [["no run has ended", ""]] };
      const measured = wilson(failed, ended);
      const tip = [["failure rate", percent(measured.rate)], ["95 % interval", `${percent(measured.low)} to ${percent(measured.high)}`],
        ["failed", `${whole(failed)} of ${whole(ended)}`]];
      return { ...row, ...measured, tip };
    });
    return { slots };
  }
  const endedSums = () => sumBySlot(facts.ended, 2, (at, row) => { at[0] += facts.ended.f[row]; at[1] += facts.ended.n[row]; });

  function reasonSums() {
    const [columns, sums] = [facts.failed, new Map()];
    columns.t.forEach((place, row) => {
      if (!isChosen(place, columns.k[row])) return;
      const reason = columns.r[row];
      if (!sums.has(reason)) sums.set(reason, new Array(facts.kinds.length).fill(0));
      sums.get(reason)[columns.k[row]] += columns.n[row];
    });
    return [...sums].sort((a, b) => total(b[1]) - total(a[1]) || a[0] - b[0]);
  }
  function reasonRows() {
    return rankingRows("reasons", reasonSums().slice(0, facts.mostBars).map(([reason, parts]) => ({
      label: facts.reasons[reason],
      parts: parts.map((amount, kind) => ({ name: facts.kinds[kind], amount, text: whole(amount), colour: kindColour(kind) })),
      text: whole(total(parts)),
    })));
  }
  /** Bars, sums and the room that these need, of rows of named parts. */
  function rankingRows(name, ranked) {
    const most = Math.max(0, ...ranked.map(({ parts }) => total(parts.map(({ amount }) => amount))));
    const plot = (mount(name).parentElement.clientWidth || 600) * 0.6;
    const longest = Math.max(0, ...ranked.map(({ text }) => text.length));
    // A digit is some eight pixels wide; the longest bar ends where the longest text still fits behind it.
    const room = (most * plot) / Math.max(plot * 0.4, plot - 8 * longest - 8);
    const [bars, rows] = [[], []];
    for (const { label, parts, text } of ranked) {
      let x0 = 0;
      for (const { amount, colour } of parts) {
        if (amount) bars.push({ label, x0, x1: x0 + amount, colour });
        x0 += amount;
      }
      const tip = parts.filter(({ amount }) => amount).map(({ name, text: told, colour }) => [name, told, colour]);
      if (tip.length > 1) tip.push(["total", text]);
      rows.push({ label, sum: x0, text, room, head: label, tip });
    }
    return { bars, rows };
  }

  // Rows for the charts that are not

  function fixedRows(name) {
    const sets = structuredClone(facts.charts[name].rows);
    if (sets.ranked) {
      for (const part of sets.ranked.flatMap(({ parts }) => parts)) part.colour = part.kind === undefined ? variable("accent") : kindColour(part.kind);
      return rankingRows(name, sets.ranked);
    }
    for (const row of Object.values(sets).flat()) {
      if (row.kind !== undefined) row.colour = kindColour(row.kind);
      if (row.tone !== undefined) row.colour = variable(row.tone);
    }
    return sets;
  }
  const filtered = { credits: creditRows, rates: rateRows, reasons: reasonRows };
  const rowsOf = (name) => (filtered[name] ?? (() => fixedRows(name)))();

  // Drawing

  const mount = (name) => document.getElementById(`chart-${name}`);
  function paramsOf(name, rows) {
    const [width, slots] = [mount(name).clientWidth || 600, Math.max(FEWEST_SLOTS, rows.slots?.length ?? 0)];
    const [ink, surface, accent, bad] = ["ink", "surface", "accent", "bad"].map(variable);
    const [begin, end] = rows.slots?.length ? endsOf(name, rows.slots) : [];
    return { ink, surface, accent, bad, begin, end, slotCount: slots, labelLimit: Math.max(90, width * 0.38), barGap: width / slots > 5 ? 1 : 0,
      ruleWidth: Math.max(1, Math.min(10, (width / slots) * 0.5)) };
  }
  function themed() {
    const [ink, muted, line] = ["ink", "muted", "line"].map(variable);
    const font = getComputedStyle(document.body).fontFamily;
    return { font, background: null, view: { stroke: null }, aria: false,
      axis: { labelColor: muted, titleColor: muted, titleFontWeight: "normal", gridColor: line, domainColor: line, tickColor: line,
        labelFontSize: 12, titleFontSize: 12, labelPadding: 6 }, text: { color: ink } };
  }
  /** Where an axis of time begins and ends: a few bars' width at the least, a month whole. */
  function endsOf(name, slots) {
    const [first, last] = [slots[0].t, slots.at(-1).t2];
    if (name === "forecast") return [first, Math.max(last, slotEnd(slotOf(first, "month"), "month"))];
    return [Math.min(first, last - FEWEST_SLOTS * (slots.at(-1).t2 - slots.at(-1).t)), last];
  }
  async function draw(name) {
    const rows = rowsOf(name);
    const isEmpty = !Object.values(rows).some((set) => set.length);
    mount(name).hidden = isEmpty;
    document.getElementById(`empty-${name}`).hidden = !isEmpty;
    views[name]?.finalize();
    delete views[name];
    if (isEmpty) return;
    const params = Object.entries(paramsOf(name, rows)).map(([key, value]) => ({ name: key, value }));
    const { spec: drawn } = facts.charts[name];
    const spec = { ...drawn, datasets: rows, params, config: themed() };
    spec.layer = drawn.layer.filter((layer) => rows[layer.data.name].length);
    if (spec.usermeta) spec.height = rows.rows.length * spec.usermeta.rowStep;
    views[name] = await vegaEmbed(mount(name), spec, { mode: "vega-lite", renderer: "svg", actions: false, ast: true,
      defaultStyle: false, tooltip: showTip, loader: { load: refuse, sanitize: refuse } });
    mount(name).dataset.drawn = "";
  }
  const refuse = async () => { throw new Error("this page loads nothing"); };
  let drawing = Promise.resolve();
  function drawAll(names = Object.keys(facts.charts).filter(mount)) {
    document.documentElement.dataset.state = "drawing";
    drawing = drawing.then(async () => {
      for (const name of names) await draw(name);
      document.documentElement.dataset.state = "drawn";
    }).catch((error) => {
      document.documentElement.dataset.state = "failed";
      console.error(error);
    });
    return drawing;
  }

  // What the pointer tells

  const tipBox = document.getElementById("tip");
  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  function showTip(_handler, event, _item, row) {
    tipBox.hidden = !row?.tip;
    if (!row?.tip) return;
    const list = element("dl");
    for (const [name, text, colour] of row.tip) {
      const term = element("dt");
      if (colour) {
        const swatch = element("span", "", { class: "swatch" });
        swatch.style.background = colour;
        term.append(swatch);
      }
      term.append(name);
      list.append(term, element("dd", text));
    }
    tipBox.replaceChildren(element("p", row.head), list);
    const { offsetWidth: width, offsetHeight: height } = tipBox;
    const x = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
    tipBox.style.left = `${Math.max(4, Math.min(x, innerWidth - width - 4))}px`;
    tipBox.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4))}px`;
  }
  addEventListener("scroll", () => { tipBox.hidden = true; }, { passive: true });

  // Tables and sentences that follow the filters

  function fillTable(name, header, rows, foot) {
    const table = document.getElementById(`table-${name}`);
    const line = (cells, tag) => {
      const made = element("tr");
      cells.forEach((cell, place) => {
        const isHead = tag === "th" || place === 0;
        made.append(element(isHead ? "th" : "td", cell, { ...(isHead && { scope: tag === "th" ? "col" : "row" }), ...(place && { class: "number" }) }));
      });
      return made;
    };
    table.tHead.replaceChildren(line(header, "th"));
    table.tBodies[0].replaceChildren(...rows.map((row) => line(row, "td")));
    table.tFoot.replaceChildren(...(foot ? [line(foot, "td")] : []));
  }
  const text = (id, words) => { document.getElementById(id).textContent = words; };

  function tellCredits() {
    const { names, sums, unknown } = creditSums();
    const met = [...names.keys()].filter((number) => [...sums.values()].some((parts) => parts[number]));
    const cell = (amount) => (amount ? (state.unit === "usd" ? money(amount) : exact(amount)) : "");
    const slots = bySlot(new Map([...sums, ...unknown]));
    const rows = slots.map((slot) => {
      const parts = sums.get(slot) ?? [];
      return [slot === null ? "not known" : isoDay(slot), ...met.map((number) => cell(parts[number])), cell(total(parts)),
        unknown.has(slot) ? whole(unknown.get(slot)[0]) : ""];
    });
    const columns = met.map((number) => total([...sums.values()].map((parts) => parts[number])));
    const silent = total([...unknown.values()].map(([runs]) => runs));
    const all = total(columns);
    fillTable("credits", [state.grain, ...met.map((number) => names[number]), state.unit === "usd" ? "USD" : "credits", "unknown runs"], rows,
      ["total", ...columns.map(cell), cell(all), silent ? whole(silent) : ""]);
    text("sum-credits", state.unit === "usd" ? `${money(all)} USD` : `${exact(all)} credits`);
    text("note-credits", creditNote(sums, silent));
  }
  function creditNote(sums, silent) {
    const notes = [];
    const undated = sums.has(null) ? total(sums.get(null)) : 0;
    if (undated) notes.push(`${amountText(undated)} of these are of a day that is not known: in the total and the table, not in the chart.`);
    if (hasPeriod() && facts.credits.t.includes(-1)) notes.push("What is of a day that is not known is in no period.");
    if (silent) notes.push(`Nothing tells the credits of ${counted(silent, "more run")}: unknown is not zero.`);
    return notes.join(" ");
  }
  function tellRates() {
    const sums = endedSums();
    const line = (name, [failed, ended]) => {
      const { rate, low, high } = wilson(failed, ended);
      return [name, whole(failed), whole(ended), percent(rate), `${percent(low)} to ${percent(high)}`];
    };
    const both = [...sums.values()].reduce((sum, [failed, ended]) => [sum[0] + failed, sum[1] + ended], [0, 0]);
    const rows = bySlot(sums).map((slot) => line(slot === null ? "not known" : isoDay(slot), sums.get(slot)));
    fillTable("rates", [state.grain, "failed", "of", "rate", "95 % interval"], rows, both[1] ? line("total", both) : null);
    const { rate, low, high } = wilson(...both);
    text("sum-rates", both[1] ? percent(rate) : "no run has ended");
    text("note-rates", both[1] ? `${whole(both[0])} of ${whole(both[1])} ended runs failed; 95 % interval ${percent(low)} to ${percent(high)}.` : "");
  }
  function tellReasons() {
    const ranked = reasonSums();
    const met = [...facts.kinds.keys()].filter((kind) => ranked.some(([, parts]) => parts[kind]));
    const cell = (number) => (number ? whole(number) : "");
    const rows = ranked.map(([reason, parts]) => [facts.reasons[reason], ...met.map((kind) => cell(parts[kind])), whole(total(parts))]);
    const columns = met.map((kind) => total(ranked.map(([, parts]) => parts[kind])));
    fillTable("reasons", ["reason", ...met.map((kind) => facts.kinds[kind]), "failed"], rows, ["total", ...columns.map(cell), whole(total(columns))]);
    const more = ranked.length - facts.mostBars;
    text("note-reasons", more > 0 ? `${counted(more, "more reason")} in the table.` : "");
  }
  function tell() {
    tellCredits();
    tellRates();
    tellReasons();
    drawLegend();
    const period = hasPeriod() ? `${state.from === null ? "the beginning" : isoDay(state.from)} to ${isoDay((state.to ?? times.at(-1) + DAY) - DAY)}` : "all days";
    text("chosen", `Shown: ${state.kinds.size} of ${counted(facts.kinds.length, "kind")}, ${period}, by ${state.grain}.`);
  }
  function drawLegend() {
    const legend = document.getElementById("legend");
    legend.hidden = state.colour === "kind";
    const { sums } = creditSums();
    const met = [...facts.products.keys()].filter((number) => [...sums.values()].some((parts) => parts[number]));
    legend.replaceChildren(...met.map((number) => {
      const item = element("li");
      const swatch = element("span", "", { class: "swatch" });
      swatch.style.background = productColour(number);
      item.append(swatch, facts.products[number]);
      return item;
    }));
  }

  // Filters

  function refresh() {
    tell();
    drawAll(Object.keys(filtered));
  }
  function choose(name, value) {
    for (const button of document.querySelectorAll(`button[data-${name}]`)) button.setAttribute("aria-pressed", String(button.dataset[name] === value));
  }
  const [from, to] = [document.getElementById("from"), document.getElementById("to")];
  function readDays() {
    const time = (input) => (input.value ? Date.parse(`${input.value}T00:00:00Z`) : null);
    setPeriod(time(from), time(to));
    choose("days", hasPeriod() ? "" : "all");
    refresh();
  }
  function usePeriod(days) {
    const last = times.length ? Date.parse(`${facts.lastDay}T00:00:00Z`) : null;
    const isAll = days === "all" || last === null;
    setPeriod(isAll ? null : last - (Number(days) - 1) * DAY, isAll ? null : last);
    from.value = isAll ? "" : isoDay(state.from);
    to.value = isAll ? "" : facts.lastDay;
    // A bar or two say little: a short period is shown by days, where they are there.
    if (!isAll && Number(days) <= 31) useGrain(facts.grain);
    if (isAll) useGrain(facts.usualGrain);
    choose("days", days);
  }
  function useGrain(grain) {
    state.grain = ORDER.indexOf(grain) < ORDER.indexOf(facts.grain) ? facts.grain : grain;
    choose("grain", state.grain);
  }
  function useKind(button) {
    const kind = Number(button.dataset.kind);
    if (!state.kinds.delete(kind)) state.kinds.add(kind);
    for (const each of document.querySelectorAll("button[data-kind]")) each.setAttribute("aria-pressed", String(state.kinds.has(Number(each.dataset.kind))));
  }
  document.getElementById("filters")?.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.days !== undefined) usePeriod(button.dataset.days);
    else if (button.dataset.grain !== undefined) useGrain(button.dataset.grain);
    else if (button.dataset.kind !== undefined) useKind(button);
    else if (button.dataset.kinds !== undefined) {
      state.kinds = new Set(state.kinds.size === facts.kinds.length ? [] : facts.kinds.keys());
      for (const each of document.querySelectorAll("button[data-kind]")) each.setAttribute("aria-pressed", String(state.kinds.size > 0));
    } else return;
    refresh();
  });
  for (const name of ["colour", "unit"]) {
    for (const button of document.querySelectorAll(`button[data-${name}]`)) {
      button.addEventListener("click", () => {
        state[name] = button.dataset[name];
        choose(name, state[name]);
        refresh();
      });
    }
  }
  for (const input of [from, to]) input?.addEventListener("change", readDays);

  // Following the reader: theme and width

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawLegend(); drawAll(); });
  let [lastWidth, waiting] = [innerWidth, 0];
  addEventListener("resize", () => {
    if (innerWidth === lastWidth) return;
    lastWidth = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => drawAll(), 150);
  });
  if (document.getElementById("filters")) tell();
  drawAll();
})();
