// Shows the API's document, and lets people try it: with the name and password
// that they give under "Authorize", or as who is logged in at the console.
"use strict";
let token = "";
fetch("/api/v1/sessions/current", { headers: { Accept: "application/json" } })
  .then((answer) => (answer.ok ? answer.json() : { csrf: "" }))
  .then((session) => { token = session.csrf; });
window.ui = SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#ui",
  docExpansion: "none",
  filter: true,
  tagsSorter: "alpha",
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (token) request.headers["X-CSRF-Token"] = token;
    return request;
  },
});
