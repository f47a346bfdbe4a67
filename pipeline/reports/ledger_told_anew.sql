-- The days beside the changed ones whose runs speak of a resource of which the changed days say something new.
WITH told_anew AS (
    (SELECT id, fact FROM new_facts EXCEPT SELECT id, fact FROM old_facts)
    UNION ALL
    (SELECT id, fact FROM old_facts EXCEPT SELECT id, fact FROM new_facts)
)
SELECT DISTINCT day
FROM other_facts
SEMI JOIN told_anew USING (id)
