"use strict";
(() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const find = (name) => document.getElementById(name);
  const film = find("film"), curve = find("curve"), cursor = curve.querySelector(".cursor");
  const now = find("now");
  cursor.style.visibility = "visible";

  // The curve: a cursor at the film's time; a click, a finger or an arrow key goes there.
  const probability = (seconds) => {
    const at = Math.round(seconds / told.seconds * (told.curve.length - 1));
    return told.curve[Math.max(0, Math.min(told.curve.length - 1, at))];
  };
  const show = (seconds) => {
    const x = told.left + (told.right - told.left) * Math.min(1, Math.max(0, seconds / told.seconds));
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    now.textContent = `${seconds.toFixed(1)} s: ${told.says} ${(100 * probability(seconds)).toFixed(0)} %`;
    find("seek").setAttribute("aria-valuenow", seconds.toFixed(1));
    find("seek").setAttribute("aria-valuetext", now.textContent);
  };
  const go = (seconds) => {
    film.currentTime = Math.min(told.seconds, Math.max(0, seconds));
    show(film.currentTime);
  };
  const goTo = (event) => {
    const box = curve.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * told.width;
    go((x - told.left) / (told.right - told.left) * told.seconds);
  };
  const seek = find("seek");
  let held = false;
  seek.addEventListener("pointerdown", (event) => { held = true; seek.setPointerCapture(event.pointerId); goTo(event); });
  seek.addEventListener("pointermove", (event) => { if (held) goTo(event); });
  for (const end of ["pointerup", "pointercancel"]) seek.addEventListener(end, () => { held = false; });
  seek.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10}[event.key];
    if (step) go(film.currentTime + step);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(told.seconds);
    else if (event.key === " " || event.key === "Enter") { if (film.paused) film.play(); else film.pause(); }
    else return;
    event.preventDefault();
  });

  // The map: another film of the same frames in the place of the plain one.
  const button = find("map");
  if (button) button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    const at = film.currentTime, plays = !film.paused;
    button.setAttribute("aria-pressed", on);
    film.addEventListener("loadedmetadata", () => { film.currentTime = at; if (plays) film.play(); }, {once: true});
    film.src = on ? told.map : told.film;
    find("key").hidden = !on;
  });

  // Adaptive and uniform: one button, one slider, one clock.
  const pair = [find("adaptive"), find("uniform")].filter(Boolean);
  if (pair.length) {
    const play = find("play"), slide = find("slide");
    const set = () => { play.textContent = pair[0].paused ? "Play both" : "Pause both"; };
    play.addEventListener("click", () => {
      if (!pair[0].paused) { for (const one of pair) one.pause(); return; }
      if (pair[0].ended) for (const one of pair) one.currentTime = 0;
      pair[1].currentTime = pair[0].currentTime;
      film.pause();
      for (const one of pair) one.play();
    });
    for (const kind of ["play", "pause", "ended"]) pair[0].addEventListener(kind, set);
    film.addEventListener("play", () => { for (const one of pair) one.pause(); });
    slide.addEventListener("input", () => { for (const one of pair) one.currentTime = slide.value; });
    pair[0].addEventListener("seeked", () => { slide.value = pair[0].currentTime; });
    const rates = ["adaptive", "uniform"].map((name) => find(name + "-rate"));
    const both = () => {
      if (!pair[0].paused) {
        slide.value = pair[0].currentTime;
        if (Math.abs(pair[0].currentTime - pair[1].currentTime) > 0.2) pair[1].currentTime = pair[0].currentTime;
      }
      const at = Math.min(told.rates.length - 1, Math.floor(pair[0].currentTime / told.filmSeconds * told.rates.length));
      rates[0].textContent = `${told.rates[at].toFixed(1)}x`;
      if (!pair[0].paused) show(told.places[at]);
    };
    setInterval(both, 50);
  }

  const tick = () => { if (!film.paused) show(film.currentTime); requestAnimationFrame(tick); };
  film.addEventListener("seeked", () => show(film.currentTime));
  show(0);
  tick();
})();
