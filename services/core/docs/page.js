// Shows the API's document, and lets people try it: with the name and password
// that they give under "Authorize", or as who they have logged in as, for which
// unsafe requests need the token that every answer to a session carries.
"use strict";
let token = "";
window.ui = SwaggerUIBundle({
  url: "/api/v2.0/openapi.json",
  dom_id: "#ui",
  docExpansion: "none",
  filter: true,
  tagsSorter: "alpha",
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (token) request.headers["X-Harbor-CSRF-Token"] = token;
    return request;
  },
  responseInterceptor(response) {
    token = response.headers["x-harbor-csrf-token"] || token;
    return response;
  },
});
