"""What must not happen to a unit's link, whatever breaks: nothing lost, nothing done twice, order kept, all in time."""
