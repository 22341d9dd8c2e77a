// The pages are read in the source tree too, where some links lead to files beside docs/. The book does not have them: it says
// where they are.
for (const link of document.querySelectorAll('main a[href^="../"]')) {
  // mdBook has made .html of .md.
  const path = link.getAttribute("href").slice(3).replace(/#.*/, "").replace(/\.html$/, ".md");
  const told = document.createElement("span");
  told.append(...link.childNodes);
  if (!told.textContent.includes(path)) {
    const where = document.createElement("code");
    where.textContent = path;
    told.append(" (", where, ")");
  }
  told.title = `${path}, in the source tree`;
  link.replaceWith(told);
}
