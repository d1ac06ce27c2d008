"""Questions over HTTP, one file per place people look at. Commands are rows in `gateway.commands`."""
