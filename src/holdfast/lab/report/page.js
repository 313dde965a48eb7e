// Searches and filters the claims. Without it the page is complete; with it, counts are filters, too.
(() => {
  const form = document.getElementById("find"), words = document.getElementById("find-words");
  const status = document.getElementById("find-status"), study = document.getElementById("find-study");
  const told = document.getElementById("find-told"), claims = [...document.querySelectorAll("[data-status]")];
  const folds = [...document.querySelectorAll("section.study details")];
  const text = new Map(claims.map(claim => [claim, claim.textContent.toLowerCase()]));
  let open = null; // what was unfolded before filtering began

  function apply() {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const on = asked.length > 0 || status.value !== "" || study.value !== "";
    if (on && open === null) open = new Set(folds.filter(fold => fold.open));
    document.body.classList.toggle("filtering", on);
    let found = 0;
    for (const claim of claims) {
      const fits = (!status.value || claim.dataset.status === status.value) &&
        (!study.value || claim.closest("section.study").id === study.value) &&
        asked.every(word => text.get(claim).includes(word));
      claim.hidden = on && !fits;
      found += fits;
    }
    for (const fold of folds) {
      if (on && fold.matches(".fold")) fold.open = fold.querySelector("[data-status]:not([hidden])") !== null;
      else if (!on && open !== null) fold.open = open.has(fold);
    }
    if (!on) open = null;
    for (const section of document.querySelectorAll("section.study"))
      section.classList.toggle("empty", on && !section.querySelector("[data-status]:not([hidden])"));
    told.textContent = on ? `${found} of ${claims.length} claims` : "";
  }

  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let item = target; item; item = item.parentElement) if (item.matches("details")) item.open = true;
    const own = target.querySelector(":scope > details");
    if (own) own.open = true;
    target.scrollIntoView();
  }

  form.hidden = false;
  for (const kind of ["input", "change"]) form.addEventListener(kind, apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.addEventListener("click", event => {
    const link = event.target.closest("a[data-show]");
    if (!link) return;
    event.preventDefault();
    words.value = "";
    status.value = link.dataset.show;
    study.value = link.dataset.study || "";
    apply();
    form.scrollIntoView();
  });
  addEventListener("hashchange", reveal);
  reveal();
})();
