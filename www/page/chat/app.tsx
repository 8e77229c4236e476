// The chat page: conversations, the thread, the model and its settings; and the figures of its answers.

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { announced } from "./announce.ts";
import { Composer } from "./composer.tsx";
import { conversation, restore } from "./conversations.ts";
import { closeDrawer, drawer, openDrawer } from "./drawer.ts";
import { Drop } from "./drop.tsx";
import { Icon } from "./icon.tsx";
import { fetchMarkdown } from "./markdown-view.tsx";
import { Sampling } from "./sampling.tsx";
import { Setup } from "./setup.tsx";
import { listenForKeys, Shortcuts } from "./shortcuts.tsx";
import { ForgetAll, Sidebar } from "./sidebar.tsx";
import { readStored, Stored } from "./stored.tsx";
import { asked, model } from "./state.ts";
import { Thread } from "./thread.tsx";

const view = signal(location.hash === "#performance" ? "performance" : "chat");

/** The links of the header are not Preact's. */
function showView(): void {
  view.value = location.hash === "#performance" ? "performance" : "chat";
  for (const link of document.querySelectorAll<HTMLAnchorElement>(".shell nav a")) {
    const url = new URL(link.href);
    const here = url.pathname.replace(/\/index\.html$/, "/") === location.pathname.replace(/\/index\.html$/, "/");
    const shown = here && (url.hash === "#performance") === (view.value === "performance");
    if (shown) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
}

/** The same page: the model stays. */
function stay(event: MouseEvent): void {
  const link = (event.target as Element).closest<HTMLAnchorElement>(".shell a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const url = new URL(link.href);
  const same = url.pathname.replace(/\/index\.html$/, "/") === location.pathname.replace(/\/index\.html$/, "/");
  if (!same || link.classList.contains("skip")) return;
  event.preventDefault();
  history.pushState(null, "", url.hash || location.pathname);
  showView();
}

/** Plots come when they are looked at. */
function Performance() {
  const [shown, setShown] = useState<{ panel: ComponentType }>();
  useEffect(() => {
    void import("./performance.tsx").then(({ Panel }) => setShown({ panel: Panel }));
  }, []);
  return shown ? <shown.panel /> : <p class="quiet">Loading…</p>;
}

function Bar() {
  return (
    <div class="topbar">
      <button type="button" class="icon-button narrow-only" aria-label="Conversations" onClick={() => openDrawer("side")}>
        <Icon name="chats" />
      </button>
      <span class="grow cut">
        <span class="topbar-title">{conversation.value.title}</span>
        {model.value && <span class="quiet"> · {asked.value.name}</span>}
      </span>
      <button type="button" class="icon-button narrow-only" aria-label="Model and settings" onClick={() => openDrawer("panel")}>
        <Icon name="tune" />
      </button>
    </div>
  );
}

function Close() {
  return (
    <button type="button" class="icon-button narrow-only close-drawer" aria-label="Close" onClick={closeDrawer}>
      <Icon name="close" />
    </button>
  );
}

export function App() {
  useEffect(() => {
    showView();
    void restore();
    void readStored();
    window.addEventListener("popstate", showView);
    window.addEventListener("hashchange", showView);
    document.addEventListener("click", stay);
    // Before it is needed, after the first look.
    const idle = setTimeout(fetchMarkdown, 500);
    const keys = listenForKeys();
    return () => {
      clearTimeout(idle);
      keys();
    };
  }, []);
  const chat = view.value === "chat";
  return (
    <>
      <div class="chat" hidden={!chat} data-drawer={drawer.value}>
        <h1 class="sr-only">Chat</h1>
        <section id="side" class="side" aria-label="Conversations">
          <Close />
          <Sidebar />
        </section>
        <div class="middle">
          <Bar />
          <Thread />
          <Composer />
        </div>
        <section id="panel" class="panel" aria-label="Model and settings">
          <Close />
          <Setup />
          <Sampling />
        </section>
        <div class="shade" onClick={closeDrawer} />
      </div>
      {!chat && <Performance />}
      <p id="announcer" class="sr-only" role="status">{announced.value}</p>
      <Stored />
      <Shortcuts />
      <ForgetAll />
      <Drop />
    </>
  );
}
