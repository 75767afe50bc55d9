// Who is on screen when: a lane a person, a button for each stretch that jumps there.
import { h } from "../../dom.js";
import { called, clock, plural, similarity } from "../../text.js";

const COLOR = /^#[0-9a-f]{6}$/i;
const MOST = 400; // stretches a lane that are buttons; a longer list helps nobody who goes by keyboard

/**
 * tracks: the content of tracks.json. player: `jump(seconds)` goes there, `now()` tells where it is; null where there
 * is none. `at(seconds)` moves the line of the present.
 */
export function timeline(tracks, player) {
  const length = Math.max(tracks.video.duration, 0.001);
  const share = (seconds) => `${Math.min(100, (seconds / length) * 100).toFixed(3)}%`;
  const marks = [];

  const next = (spans) => (spans.find((span) => span.from > player.now()) ?? spans[0]).from;

  const lane = (name, color, spans) => {
    const mark = h("div", { class: "track-now", hidden: true });
    marks.push(mark);
    return h("li", { class: "track" },
      player ? h("button", { class: "track-name", type: "button", title: `${name}: jump to where they are next`, onclick: () => player.jump(next(spans)) }, name)
        : h("span", { class: "track-name", title: name }, name),
      h("div", { class: "track-lane" }, spans.map((span, n) => {
        const text = `${name}, ${clock(span.from)} to ${clock(span.to)}${span.similarity === null ? "" : `, similarity ${similarity(span.similarity)}`}`;
        const css = { left: share(span.from), width: share(span.to - span.from), ...(color ? { background: color } : {}) };
        return player && n < MOST ? h("button", { class: "track-span", type: "button", "aria-label": text, title: text, css, onclick: () => player.jump(span.from) })
          : h("span", { class: "track-span", title: text, css });
      }), mark),
      h("span", { class: "small muted num nowrap" }, `${clock(spans.reduce((sum, span) => sum + span.to - span.from, 0))} · ${spans.length}×`));
  };

  const outliers = tracks.tracks.filter((track) => track.identity === null);
  const rows = tracks.people.map((person) => lane(called(person), COLOR.test(person.color) ? person.color : null,
    tracks.tracks.filter((track) => track.identity === person.id)));
  if (outliers.length) rows.push(lane("Unknown", null, outliers));
  return {
    element: rows.length
      ? h("div", { class: "stack tight" }, h("ul", { class: "tracks", "aria-label": "Timeline" }, rows),
        h("p", { class: "small muted" }, `${plural(tracks.people.length, "person", "people")} named.${player ? " Click a name or a stretch to jump there." : ""}`))
      : h("p", { class: "muted" }, "No face was found in this video."),
    at(seconds) {
      for (const mark of marks) {
        mark.hidden = false;
        mark.style.left = share(seconds);
      }
    },
  };
}
