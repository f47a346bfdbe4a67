-- The runs that took longest from created to finished, in seconds; what that means, and which runs are left out, says
-- `latency.sql`.
SELECT
    run_id,
    kind,
    created_on,
    (epoch_us(coalesce(ended_at, updated_at)) - epoch_us(coalesce(created_at, initial_run_at))) / 1e6 AS seconds,
    processing_ms / 1e3 AS processing_seconds,
    coalesce(processor_name, processor_id) AS processor,
    file_name,
    coalesce(page_count, file_pages) AS pages,
    status,
    dashboard_url
FROM asked
WHERE status IN ('PROCESSED', 'FAILED', 'CANCELLED')
    AND NOT (coalesce(reviewed, false) OR coalesce(edited, false) OR reviewed_at IS NOT NULL)
    AND coalesce(ended_at, updated_at) >= coalesce(created_at, initial_run_at)
ORDER BY seconds DESC, run_id
LIMIT $most
