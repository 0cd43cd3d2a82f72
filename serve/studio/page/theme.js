// Light or dark, as chosen before the first paint; a plain script, because modules run after it.
const THEMES = ["auto", "light", "dark"];

function storedTheme() {
  try {
    const stored = localStorage.getItem("atrous-theme");
    return THEMES.includes(stored) ? stored : "auto";
  } catch {
    return "auto"; // storage is forbidden
  }
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("atrous-theme", theme);
  } catch {
    // the choice lasts as long as the page
  }
}

applyTheme(storedTheme());

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const label = () => {
    const text = `Theme: ${document.documentElement.dataset.theme}`;
    button.setAttribute("aria-label", text);
    button.title = text;
  };
  button.addEventListener("click", () => {
    const next = (THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length;
    applyTheme(THEMES[next]);
    label();
  });
  label();
});
