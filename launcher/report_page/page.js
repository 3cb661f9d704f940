// The report's page: it filters and sorts the table of jobs, and draws the charts. All data is in the page; nothing is fetched.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);

  // -- the table of jobs ------------------------------------------------------------------------------------------

  const CHUNK = 50;
  const table = byId("table");
  const rows = Array.from(table.tBodies[0].rows);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  let order = rows.map((_, index) => index);
  let found = order;
  let brushed = null;

  const columnOf = (name) => data.columns.find((one) => one.name.toLowerCase() === name);
  const COMPARISON = /^([^<>=]+?)(<=|>=|<|>|=)([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)$/;

  function test(word) {
    const parts = COMPARISON.exec(word);
    const column = parts && columnOf(parts[1]);
    if (!column) return (index) => texts[index].includes(word);
    const limit = Number(parts[3]);
    const holds = {
      "<": (x) => x < limit, ">": (x) => x > limit, "<=": (x) => x <= limit, ">=": (x) => x >= limit, "=": (x) => x === limit,
    }[parts[2]];
    return (index) => typeof column.cells[index] === "number" && holds(column.cells[index]);
  }

  function filter() {
    const tests = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    const state = byId("state").value;
    if (state) tests.push((index) => data.states[data.state[index]] === state);
    if (brushed) tests.push((index) => brushed.has(index));
    found = order.filter((index) => tests.every((holds) => holds(index)));
    show();
  }

  // All rows that are found are in the page, so that it scrolls to its end and the browser's search finds them. The style lets the browser
  // lay out only the chunks that come into view.
  function show() {
    const chunks = [];
    for (let at = 0; at < found.length; at += CHUNK) {
      const chunk = document.createElement("tbody");
      const part = found.slice(at, at + CHUNK);
      chunk.append(...part.map((index) => rows[index]));
      chunk.style.containIntrinsicHeight = `auto ${part.length * rowHeight}px`;
      chunks.push(chunk);
    }
    table.replaceChildren(table.tHead, ...chunks);
    const all = rows.length.toLocaleString("en");
    byId("shown").textContent = found.length === rows.length ? `${all} jobs` : `${found.length.toLocaleString("en")} of ${all} jobs`;
  }

  // The widths of the columns: those of their longest texts. Laid out by itself, a chunk knows nothing of the other ones.
  function measure() {
    const LONGEST = 420;
    const head = table.tHead.rows[0].cells;
    const style = getComputedStyle(head[0]);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `600 ${style.fontSize} ${style.fontFamily}`;
    const widths = Array.from(head, (header, at) => {
      const cells = rows.map((row) => row.cells[at].textContent);
      const length = cells.reduce((most, one) => Math.max(most, one.length), 0);
      // Letters differ in width, so the longest text is not always the widest.
      const widest = cells.filter((one) => one.length > length - 3).slice(0, 50).reduce((most, one) => Math.max(most, pen.measureText(one).width), 40);
      // A header has room for the arrow of its order.
      return Math.ceil(Math.max(Math.min(widest, LONGEST), pen.measureText(`${header.textContent} \u25B2`).width)) + 16;
    });
    table.style.setProperty("--columns", widths.map((one) => `${one}px`).join(" "));
    table.style.setProperty("--width", `${widths.reduce((sum, one) => sum + one, 0)}px`);
    return parseFloat(style.lineHeight) + 8;
  }

  function compare(one, other) {
    const kinds = [one, other].map((cell) => (typeof cell === "number" ? 0 : cell === null || cell === "" ? 2 : 1));
    if (kinds[0] !== kinds[1]) return kinds[0] - kinds[1];
    return kinds[0] === 0 ? one - other : kinds[0] === 1 ? String(one).localeCompare(String(other)) : 0;
  }

  function sortBy(column, header, descending) {
    order = rows.map((_, index) => index);
    const missing = (cell) => cell === null || cell === "";
    order.sort((one, other) => {
      const [a, b] = [column.cells[one], column.cells[other]];
      if (missing(a) || missing(b)) return missing(a) - missing(b) || one - other;
      return (descending ? -compare(a, b) : compare(a, b)) || one - other;
    });
    for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
    if (header) header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    filter();
  }

  Array.from(table.tHead.rows[0].cells).forEach((header, at) => {
    const column = data.columns[at];
    if (!column) return;
    header.tabIndex = 0;
    const act = () => sortBy(column, header, header.getAttribute("aria-sort") === "ascending");
    header.addEventListener("click", act);
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); }
    });
  });
  byId("filter").addEventListener("input", filter);
  byId("state").addEventListener("change", filter);

  // A link to a job shows it, also one that the filter leaves out.
  function goToHash() {
    const index = rows.findIndex((row) => `#${row.id}` === location.hash);
    if (index >= 0 && !found.includes(index)) { byId("filter").value = ""; byId("state").value = ""; unbrush(); filter(); }
    const target = byId(location.hash.slice(1));
    if (target) target.scrollIntoView({ block: index < 0 ? "start" : "center" });
  }
  addEventListener("hashchange", goToHash);
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
  });

  // A click on a command copies it.
  document.querySelectorAll("code.copy").forEach((code) => {
    code.tabIndex = 0;
    code.setAttribute("role", "button");
    code.setAttribute("aria-label", `copy: ${code.textContent}`);
    const copy = () => navigator.clipboard && navigator.clipboard.writeText(code.textContent).then(() => code.classList.add("copied"), () => {});
    code.addEventListener("click", copy);
    code.addEventListener("keydown", (event) => { if (event.key === "Enter") copy(); });
  });

  // -- charts -----------------------------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const isNumber = (cell) => typeof cell === "number";
  const charts = new Map();

  function draw(id) {
    const { make, listen } = makers[id];
    let chart = charts.get(id);
    if (!chart) {
      chart = echarts.init(byId(id), null, { renderer: "canvas" });
      charts.set(id, chart);
      if (listen) listen(chart);
    }
    chart.setOption({ animation: false, textStyle: { color: colour("text"), fontFamily: "inherit" }, ...make() }, { notMerge: true });
  }
  const redraw = () => charts.forEach((_, id) => draw(id));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => charts.forEach((chart) => chart.resize()));

  const quantities = data.columns.filter((one) => one.role === "value" && one.cells.some(isNumber));
  const settings = data.columns.filter((one) => one.role === "setting");
  const plottable = [...settings, ...quantities];
  const text = (cell) => (isNumber(cell) ? String(Number(cell.toPrecision(6))) : cell === null ? "" : String(cell));
  const tooltip = () => ({
    renderMode: "richText", confine: true, backgroundColor: colour("raised"), borderColor: colour("line"),
    textStyle: { color: colour("text"), fontSize: 12 },
  });

  // An axis for a column: numbers, on a log scale where they spread over two powers of ten and more; everything else by name.
  function axisOf(column) {
    const cells = column.cells.filter((cell) => cell !== null && cell !== "");
    if (cells.length && cells.every(isNumber)) {
      const least = cells.reduce((a, b) => Math.min(a, b));
      const greatest = cells.reduce((a, b) => Math.max(a, b));
      const isLog = least > 0 && greatest / least >= 100;
      return isLog ? { type: "log", min: least, max: greatest } : { type: "value", scale: true };
    }
    return { type: "category", data: [...new Set(cells.map(text))].sort().slice(0, 200) };
  }
  const shownCell = (column, axis, index) => {
    const cell = column.cells[index];
    if (axis.type === "category") return cell === null ? null : text(cell);
    return isNumber(cell) ? cell : null;
  };
  const decoration = () => ({
    nameTextStyle: { color: colour("text") },
    axisLabel: { color: colour("text"), textBorderColor: colour("ground"), textBorderWidth: 3, hideOverlap: true, formatter: (x) => text(x).slice(0, 18) },
    axisLine: { show: true, lineStyle: { color: colour("dim") } }, splitLine: { lineStyle: { color: colour("line") } },
  });
  // Dark to bright on dark ground, and the other way round: cividis, which the colour-blind tell apart.
  const ramp = () => {
    const colours = ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"];
    return matchMedia("(prefers-color-scheme: dark)").matches ? ["#3b5c9a", "#6f7fa0", "#948e77", "#c8b866", "#fee838"] : colours.slice(0, 5);
  };

  function chosen() {
    const target = plottable.find((one) => one.name === byId("colour").value) || quantities[0];
    const share = Number(byId("top").value);
    let indices = rows.map((_, index) => index).filter((index) => isNumber(target.cells[index]));
    if (share < 100) {
      const sign = byId("direction").value === "greatest" ? -1 : 1;
      indices.sort((a, b) => sign * (target.cells[a] - target.cells[b]));
      indices = indices.slice(0, Math.max(1, Math.ceil((indices.length * share) / 100)));
    }
    return { target, indices };
  }
  function colouring(target, indices, dimension) {
    const cells = indices.map((index) => target.cells[index]);
    return {
      show: true, type: "continuous", dimension, min: cells.reduce((a, b) => Math.min(a, b), Infinity), max: cells.reduce((a, b) => Math.max(a, b), -Infinity),
      text: [target.name.slice(0, 24), ""], textStyle: { color: colour("text") }, inRange: { color: ramp() }, right: 0, top: "middle", itemHeight: 110, itemWidth: 12, calculable: false,
    };
  }

  function parallelOption() {
    const { target, indices } = chosen();
    // The axes that say most: those that vary, and the values.
    const columns = [...settings.slice(0, 9), ...quantities.slice(0, 4)];
    if (!columns.includes(target)) columns.push(target);
    const axes = columns.map((column) => axisOf(column));
    parallelIndices = indices;
    return {
      tooltip: { show: false },
      visualMap: indices.length ? colouring(target, indices, columns.indexOf(target)) : undefined,
      parallelAxis: columns.map((column, dim) => ({
        dim, name: column.name.slice(0, 24), ...axes[dim], ...decoration(), nameLocation: "end", z: 20,
        // Names stand on the lines.
        ...(axes[dim].type === "category" ? { axisLabel: { ...decoration().axisLabel, backgroundColor: colour("raised"), padding: [1, 3], borderRadius: 2 } } : {}),
        areaSelectStyle: { width: 18, borderWidth: 1, borderColor: colour("link"), color: colour("link"), opacity: 0.25 },
      })),
      parallel: { left: 40, right: 110, top: 34, bottom: 24, parallelAxisDefault: { realtime: indices.length < 3000 } },
      series: [{
        type: "parallel", inactiveOpacity: 0.02, activeOpacity: 0.9, progressive: 1000, smooth: false,
        lineStyle: { width: indices.length > 500 ? 0.6 : 1.4, opacity: indices.length > 3000 ? 0.15 : indices.length > 500 ? 0.35 : 0.7 },
        data: indices.map((index) => columns.map((column, dim) => shownCell(column, axes[dim], index) ?? "-")),
      }],
    };
  }
  let parallelIndices = [];
  function listenBrush(chart) {
    chart.on("axisareaselected", () => {
      const model = chart.getModel();
      const isBrushed = model.queryComponents({ mainType: "parallelAxis" }).some((axis) => axis.activeIntervals.length);
      const active = model.getSeriesByIndex(0).getRawIndicesByActiveState("active");
      brushed = isBrushed ? new Set(active.map((at) => parallelIndices[at])) : null;
      filter();
    });
  }
  function unbrush() {
    if (!brushed) return;
    brushed = null;
    draw("parallel");
  }

  function scatterOption() {
    const x = plottable.find((one) => one.name === byId("scatter-x").value) || plottable[0];
    const y = plottable.find((one) => one.name === byId("scatter-y").value) || quantities[0];
    const { target, indices } = chosen();
    const [xAxis, yAxis] = [axisOf(x), axisOf(y)];
    const points = indices.map((index) => [shownCell(x, xAxis, index), shownCell(y, yAxis, index), target.cells[index], index]);
    return {
      tooltip: {
        ...tooltip(),
        formatter: (at) => {
          const index = at.value[3];
          return [`job ${data.num[index]}`, ...plottable.slice(0, 14).map((one) => `${one.name}: ${text(one.cells[index])}`)].join("\n");
        },
      },
      visualMap: indices.length ? colouring(target, indices, 2) : undefined,
      grid: { left: 70, right: 120, top: 34, bottom: 50 },
      xAxis: { name: x.name.slice(0, 40), nameLocation: "middle", nameGap: 30, ...xAxis, ...decoration() },
      yAxis: { name: y.name.slice(0, 40), ...yAxis, ...decoration() },
      series: [{ type: "scatter", symbolSize: points.length > 2000 ? 4 : 8, itemStyle: { opacity: points.length > 2000 ? 0.5 : 0.8 }, data: points.filter((one) => one[0] !== null && one[1] !== null), large: false }],
    };
  }

  function timelineOption() {
    const colours = { COMPLETED: colour("completed"), FAILED: colour("failed"), running: colour("running") };
    const gap = colour("gap");
    const lanes = data.lanes.length;
    const renderSpan = (params, api) => {
      const [left, top] = api.coord([api.value(1), api.value(0)]);
      const [right] = api.coord([api.value(2), api.value(0)]);
      const [behind] = api.coord([api.value(3), api.value(0)]);
      const height = Math.min(api.size([0, 1])[1] * 0.72, 22);
      const fill = colours[data.states[api.value(5)]] || colour("other");
      const area = params.coordSys;
      const clip = (x, width, tall) => echarts.graphic.clipRectByRect({ x, y: top - tall / 2, width: Math.max(width, 1), height: tall }, { x: area.x, y: area.y, width: area.width, height: area.height });
      const shapes = [[left, right - left, height], [right, behind - right, Math.max(height * 0.2, 1.5)]].filter((one) => one[1] >= 0 && one[0] !== undefined);
      return {
        type: "group",
        children: shapes.map(([x, width, tall], at) => ({ at, shape: at && width < 0.5 ? null : clip(x, width, tall) })).filter((one) => one.shape)
          .map((one) => ({ type: "rect", shape: one.shape, style: { fill, stroke: colour("ground"), lineWidth: one.at || one.shape.width < 4 ? 0 : 0.5 } })),
      };
    };
    const renderGap = (params, api) => {
      const [left, top] = api.coord([api.value(2), api.value(1)]);
      const [right, bottom] = api.coord([api.value(3), api.value(0)]);
      const half = api.size([0, 1])[1] / 2;
      const area = params.coordSys;
      const shape = echarts.graphic.clipRectByRect({ x: left, y: Math.min(top, bottom) - half, width: Math.max(right - left, 2), height: Math.abs(bottom - top) + 2 * half }, { x: area.x, y: area.y, width: area.width, height: area.height });
      return shape && { type: "rect", shape, style: { fill: gap, opacity: 0.3 } };
    };
    const clock = (x) => (x < 120 ? `${Number(x.toPrecision(3))} s` : x < 7200 ? `${Math.round(x / 6) / 10} min` : `${Math.round(x / 360) / 10} h`);
    return {
      tooltip: {
        ...tooltip(),
        formatter: (at) => {
          if (at.seriesIndex) return `no link: ${data.gaps[at.dataIndex][4]}`;
          const [lane, start, stop, , job, state, attempt] = at.value;
          return [`job ${data.num[job]}, attempt ${attempt}, ${data.states[state]}`, data.lanes[lane], `from ${clock(start)} on, ${clock(stop - start)}`,
            ...settings.slice(0, 8).map((one) => `${one.name}: ${text(one.cells[job])}`)].join("\n");
        },
      },
      grid: { left: 110, right: 20, top: 10, bottom: 70 },
      xAxis: { type: "value", min: 0, max: data.span, ...decoration(), axisLabel: { color: colour("dim"), formatter: clock } },
      yAxis: { type: "category", inverse: true, data: data.lanes, ...decoration(), axisLabel: { color: colour("dim"), formatter: (x) => (x.length > 16 ? `${x.slice(0, 15)}…` : x) }, splitLine: { show: false } },
      dataZoom: [
        { type: "slider", xAxisIndex: 0, height: 18, bottom: 12, filterMode: "weakFilter", labelFormatter: clock, textStyle: { color: colour("dim") } },
        { type: "inside", xAxisIndex: 0, filterMode: "weakFilter", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
        ...(lanes > 40 ? [{ type: "slider", yAxisIndex: 0, right: 0, width: 14, startValue: 0, endValue: 39, filterMode: "weakFilter", showDetail: false }] : []),
      ],
      series: [
        { type: "custom", renderItem: renderSpan, encode: { x: [1, 2], y: 0 }, data: data.spans, progressive: 2000, clip: true },
        { type: "custom", renderItem: renderGap, encode: { x: [2, 3], y: 0 }, data: data.gaps.map((one) => one.slice(0, 4)), clip: true, z: 3 },
      ],
    };
  }

  const makers = {
    parallel: { make: parallelOption, listen: listenBrush }, scatter: { make: scatterOption }, lanes: { make: timelineOption },
  };

  function fill(id, columns, value) {
    const select = byId(id);
    for (const column of columns) select.append(new Option(column.name, column.name));
    if (value) select.value = value;
  }

  function start() {
    if (byId("parallel") && quantities.length) {
      const target = (quantities.find((one) => one.name === data.target) || quantities[0]).name;
      fill("colour", quantities, target);
      fill("scatter-x", plottable, plottable[0].name);
      fill("scatter-y", plottable, target);
      if (data.greatest) byId("direction").value = "greatest";
      const both = () => { brushed = null; draw("parallel"); draw("scatter"); filter(); };
      for (const id of ["colour", "top", "direction"]) byId(id).addEventListener("change", both);
      for (const id of ["scatter-x", "scatter-y"]) byId(id).addEventListener("change", () => draw("scatter"));
      byId("unbrush").addEventListener("click", () => { unbrush(); filter(); });
    }
    const lanes = byId("lanes");
    if (lanes) lanes.style.height = `${Math.min(Math.max(data.lanes.length, 3), 40) * 24 + 90}px`;
    // A chart is drawn when it comes near the window from below: who goes to the jobs waits for no chart.
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        draw(entry.target.id);
      }
    }, { rootMargin: "0px 0px 600px 0px" });
    for (const id of Object.keys(makers)) if (byId(id)) near.observe(byId(id));
  }

  const rowHeight = rows.length ? measure() : 0;
  filter();
  table.classList.add("ready");
  goToHash();
  start();
  // What is drawn and found, for whoever looks from the console; the tests do.
  window.report = { charts, found: () => found.map((index) => data.num[index]) };
})();
