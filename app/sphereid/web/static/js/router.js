// Pages by the fragment of the address: #/gallery/default/people/alice → page "gallery", rest ["default", …].

let current = null;

export function here() {
  const [page = "", ...rest] = location.hash.replace(/^#\/?/, "").split("?")[0].split("/");
  return { page, rest: rest.map(decode) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a page. */
export const link = (...parts) => `#/${parts.map((p) => encodeURIComponent(p)).join("/")}`;

export function go(...parts) {
  location.hash = link(...parts);
}

/**
 * Show the page of the address now and at every change.
 * pages: those that this service can show. show(page, rest, signal): builds it; signal ends with the page.
 */
export function start(pages, show) {
  const turn = async (event) => {
    const { page, rest } = here();
    const found = pages.find((each) => each.id === page);
    if (!found) {
      location.replace(link(pages[0].id));
      return;
    }
    current?.abort();
    current = new AbortController();
    await show(found, rest, current.signal, event !== undefined);
  };
  addEventListener("hashchange", turn);
  return { turn };
}
