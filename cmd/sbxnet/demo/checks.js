"use strict";
// Asks the server in the sandbox for fresh results every few seconds.
const list = document.getElementById("checks");
const age = document.getElementById("age");

function row(check) {
  const li = document.createElement("li");
  li.className = check.state;
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.setAttribute("aria-label", check.state);
  dot.setAttribute("role", "img");
  const text = document.createElement("div");
  const name = document.createElement("b");
  name.textContent = check.name;
  const detail = document.createElement("p");
  detail.className = "muted";
  detail.textContent = check.detail;
  text.append(name, detail);
  li.append(dot, text);
  return li;
}

async function refresh() {
  try {
    const response = await fetch("/checks", { cache: "no-store" });
    const checks = await response.json();
    list.replaceChildren(...checks.map(row));
    age.textContent = "at " + new Date().toLocaleTimeString();
  } catch {
    age.textContent = "the sandbox has ended";
  }
  setTimeout(refresh, 3000);
}
refresh();
