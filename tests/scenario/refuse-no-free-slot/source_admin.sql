SELECT pg_create_physical_replication_slot('taken')
WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = 'taken');
