module fairlead.dev/e2e/node-json

go 1.24
