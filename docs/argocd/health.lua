-- Argo CD's health of a FederatedIncrementalJob: into the ConfigMap argocd-cm, under the key
-- resource.customizations.health.engram.dev_FederatedIncrementalJob
local health = { status = "Progressing", message = "waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
local generation = obj.metadata.generation
if status.observedGeneration ~= nil and generation ~= nil and status.observedGeneration < generation then
  health.message = "the operator has not seen the newest edit yet"
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" then
    found[condition.type] = condition.message
  end
end
-- The first that holds: an end, then what needs a person, then what goes on.
local order = {
  { "Failed", "Degraded" },
  { "Complete", "Healthy" },
  { "Suspended", "Suspended" },
  { "Stalled", "Degraded" },
}
for _, pair in ipairs(order) do
  if found[pair[1]] ~= nil then
    return { status = pair[2], message = found[pair[1]] }
  end
end
health.message = status.message or health.message
return health
