// Sets the chosen theme before the first paint. A classic script: modules run too late for that.
try {
  const theme = localStorage.getItem("sphereid.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be blocked; the system's theme is used then.
}
