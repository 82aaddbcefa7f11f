// The description of the interface, shown by Swagger UI; nothing is loaded from, or told to, anybody but this server.

globalThis.ui = globalThis.SwaggerUIBundle({
  domNode: document.getElementById("viewer"),
  url: new URL("openapi.json", document.baseURI).href,
  validatorUrl: null, // a service of others that would be told the address of this server
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  onComplete() { document.documentElement.dataset.ready = "yes"; },
});
