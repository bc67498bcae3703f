// Checks the form of an action while the operator types: shows the plan, or what is wrong.
const form = document.getElementById("action");
const plan = document.getElementById("plan");
let timer = 0;
let turn = 0;

function show(className, texts) {
  plan.className = className;
  plan.replaceChildren(...texts.map((text) => {
    const line = document.createElement("p");
    const inner = document.createElement("bdi");
    inner.textContent = text;
    line.append(inner);
    return line;
  }));
}

async function check() {
  const own = ++turn;
  try {
    const answer = await fetch(form.dataset.check, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const found = await answer.json();
    if (own !== turn) return;
    if (found.error) show("message error", [found.error]);
    else show("message", found.will);
  } catch {
    if (own === turn) show("", []);
  }
}

form?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(check, 400);
});
