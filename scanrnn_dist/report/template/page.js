"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)"), still = { displayModeBar: false, responsive: true };
  const live = document.getElementById("live"), body = document.getElementById("body");
  let plots = JSON.parse(document.getElementById("plots").textContent);

  function draw() {
    const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: of("--line"), zerolinecolor: of("--line"), linecolor: of("--line"), automargin: true };
    for (const { id, data, layout } of Object.values(plots)) {
      const looks = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
        font: { color: of("--text"), family: "system-ui, sans-serif", size: 13 }, margin: { l: 8, r: 8, t: 8, b: 8 },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, itemsizing: "constant", traceorder: "normal" },
        hoverlabel: { bgcolor: of("--box"), font: { color: of("--text") }, bordercolor: of("--line") },
        ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
      };
      Plotly.react(id, data, looks, still);
    }
  }

  // What the server sends has escaped all that is of the data. Drawn plots move over, and what was open stays open.
  function show(now) {
    const fresh = new DOMParser().parseFromString(now.body, "text/html").body;
    for (const old of body.querySelectorAll(".js-plotly-plot")) fresh.querySelector("#" + old.id)?.replaceWith(old);
    for (const old of body.querySelectorAll("details")) {
      const again = fresh.querySelector("#" + old.id);
      if (again) again.open = old.open;
    }
    body.replaceChildren(...fresh.childNodes);
    plots = now.plots;
    document.title = now.title;
    draw();
  }

  async function follow() {
    let ended = false;
    try {
      const answer = await fetch("now.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      const now = await answer.json();
      show(now);
      ended = now.state === "complete";
      live.textContent = now.following;
    } catch (error) {
      live.textContent = "There is no news of the job: " + error.message;
    }
    if (!ended) setTimeout(follow, 1000 * live.dataset.seconds);
  }

  draw();
  dark.addEventListener("change", draw);
  document.body.dataset.drawn = "yes";
  if (live) setTimeout(follow, 1000 * live.dataset.seconds);
})();
