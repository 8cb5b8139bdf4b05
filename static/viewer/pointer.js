// Mouse, touch and pen on the panes: the tool in hand, wheel, pinch. What they do is the viewer's; here is when.

const CLICK_PX = 4;
const WHEEL = 0.0015;

export function bindPointer(viewer) {
  const held = new Map(); // pointers that are down: id → {x, y}
  let pressed = null;
  let pinched = null;

  const where = (event, pane) => {
    const box = pane.view.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  for (const pane of viewer.panes) {
    const { view } = pane;
    view.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      if (event.button === 1) event.preventDefault();
      view.setPointerCapture(event.pointerId);
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const pans = event.button === 1 || event.shiftKey;
      pressed = { pane, x: event.clientX, y: event.clientY, tool: pans ? "pan" : viewer.tool, moved: false };
      if (held.size === 2) {
        pinched = span(held);
        pressed = null;
      }
    });
    view.addEventListener("pointermove", (event) => {
      const last = held.get(event.pointerId);
      viewer.hover(pane, where(event, pane), event.pointerType === "mouse" || viewer.tool !== "pan");
      if (!last) return;
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (held.size === 2 && pinched) {
        const now = span(held);
        const box = view.getBoundingClientRect();
        const around = viewer.sourceAt(pane, { x: now.x - box.left, y: now.y - box.top });
        viewer.look((look, size) => {
          look.pan(now.x - pinched.x, now.y - pinched.y);
          look.zoomTo((look.zoom * now.length) / pinched.length, size, around);
        });
        pinched = now;
        return;
      }
      if (!pressed) return;
      if (Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > CLICK_PX && !pressed.moved) {
        pressed.moved = true;
        if (pressed.tool === "measure") viewer.measure(viewer.sourceAt(pane, where(pressedEvent(pressed), pane)));
      }
      if (!pressed.moved) return;
      const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
      if (pressed.tool === "pan") viewer.look((look) => look.pan(dx, dy));
      if (pressed.tool === "window") viewer.dragWindow(dx, dy);
    });
    const released = (event) => {
      held.delete(event.pointerId);
      if (held.size < 2) pinched = null;
      if (event.type === "pointerup" && pressed?.tool === "measure") {
        viewer.measure(viewer.sourceAt(pane, where(event, pane)));
      }
      pressed = null;
    };
    view.addEventListener("pointerup", released);
    view.addEventListener("pointercancel", released);
    view.addEventListener("pointerleave", () => viewer.hover(pane, null));
    view.addEventListener("dblclick", () => viewer.tool !== "measure" && viewer.toggleSingle(pane));
    view.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const around = viewer.sourceAt(pane, where(event, pane));
        const delta = event.deltaMode === 1 ? event.deltaY * 24 : event.deltaY;
        viewer.look((look, size) => look.zoomTo(look.zoom * Math.exp(-delta * WHEEL), size, around));
      },
      { passive: false },
    );
  }
}

const pressedEvent = ({ x, y }) => ({ clientX: x, clientY: y });

/** Middle and distance of two pointers. */
function span(held) {
  const [a, b] = [...held.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.max(1, Math.hypot(b.x - a.x, b.y - a.y)) };
}
