// The pages work without this. It follows the state of setup and appliance without
// loading the page anew, and hides the fields of choices that are not made.
"use strict";

function progress(live) {
	let silent = 0;
	const every = Number(live.dataset.every) || 1500;
	const look = async () => {
		try {
			const answer = await fetch(live.dataset.source, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(4000) }); // an address that is gone answers nothing at all
			if (answer.redirected || answer.status === 401 || answer.status === 403) {
				location.assign("/");
				return;
			}
			if (!answer.ok) throw new Error(answer.statusText);
			const page = new DOMParser().parseFromString(await answer.text(), "text/html");
			// What is the same is left alone: it would be read aloud again and again.
			// Where somebody is with the keyboard, nothing is taken away.
			if (page.body.textContent.trim() !== live.textContent.trim() && !live.contains(document.activeElement)) live.replaceChildren(...page.body.childNodes);
			silent = 0;
		} catch {
			silent++;
		}
		document.getElementById("lost").hidden = silent < 3;
		const phase = live.querySelector("[data-phase]")?.dataset.phase;
		if (phase === "ready") location.assign(live.dataset.then);
		else if (phase !== "failed") setTimeout(look, every);
	};
	setTimeout(look, every);
}

// follow shows what belongs to the choice that is made, and nothing else.
function follow(inputs, parts) {
	const show = () => {
		const chosen = [...inputs].find((i) => i.checked)?.value;
		for (const [element, ways] of parts) element.hidden = !ways.includes(chosen);
	};
	for (const i of inputs) i.addEventListener("change", show);
	show();
}

const live = document.getElementById("live");
if (live) progress(live);

const ways = document.querySelectorAll("input[name=certificate]");
if (ways.length) follow(ways, [...document.querySelectorAll("[data-way]")].map((e) => [e, e.dataset.way.split(" ")]));

const modes = document.querySelectorAll('input[name="network.mode"]');
if (modes.length) {
	const fields = ["network.ip4", "network.gateway4"].map((n) => document.querySelector(`[data-name="${n}"]`));
	follow(modes, fields.filter(Boolean).map((e) => [e, ["static"]]));
}
